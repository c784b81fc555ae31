"""What plans jobs and keeps records: configurations, parameters, fingerprints, and the machine.

No value of a measurement is computed here, so no module of this package counts in a fingerprint.
"""

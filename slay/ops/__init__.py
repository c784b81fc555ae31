"""Attention over heads: the oracle, the chunked linear form, the blocked exact form."""

"""Verification, tests and timings that need a GPU, by one command, on a GPU lent for minutes."""

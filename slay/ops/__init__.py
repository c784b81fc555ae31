"""Attention over heads: reference, chunked linear and blocked exact implementations."""

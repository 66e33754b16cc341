"""Measurements."""
CLAIMS = ()

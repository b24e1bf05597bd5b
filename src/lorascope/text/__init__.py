"""Codes to sentences; numbers and units as people read them; catalogs."""

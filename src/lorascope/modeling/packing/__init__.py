"""Rows end to end without padding: layout, attention, shared prefixes."""

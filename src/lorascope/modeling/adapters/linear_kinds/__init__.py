"""Kinds of frozen linear layers that can carry adapters; one file a kind, and one line in the registry."""

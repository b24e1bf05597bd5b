"""Data pipeline: from the rows that a user names to token ids and loss masks.

Importing this package imports neither transformers nor datasets; ``prepare`` and ``sources`` do.
"""

"""Predict operations, bytes, seconds and memory from shapes."""

"""Costs of each rank: time, memory, predictions."""

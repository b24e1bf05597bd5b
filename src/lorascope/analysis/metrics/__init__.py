"""Metrics per held-out row beside the loss: what each rank scores, and what its rows support."""

"""Ways to compute a model."""

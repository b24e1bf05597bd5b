"""The frozen base model and the adapters on it."""

"""Training of trial groups over one frozen base model."""

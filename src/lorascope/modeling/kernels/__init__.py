"""Compiled kernels for the operations of a training step that are no matrix products."""

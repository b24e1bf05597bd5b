"""Compiled kernels for the operations of a training step."""

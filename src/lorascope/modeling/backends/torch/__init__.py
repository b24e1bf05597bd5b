"""The backend that computes with Torch's own operations, on any device."""

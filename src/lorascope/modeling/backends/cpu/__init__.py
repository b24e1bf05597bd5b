"""The backend of kernels that are compiled for the CPU."""

"""Measurement of time, memory and the machine."""

"""Carrying a study out: trials, solo measurements, resume."""

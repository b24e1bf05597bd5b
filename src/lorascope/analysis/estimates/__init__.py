"""Losses, differences and their uncertainty."""

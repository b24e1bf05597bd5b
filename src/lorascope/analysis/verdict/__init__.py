"""Conclusions that the data supports: claims, verdict, recommendation, cautions."""

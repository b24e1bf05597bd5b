"""The live page: what a study's records say while they are written, read-only and without torch."""

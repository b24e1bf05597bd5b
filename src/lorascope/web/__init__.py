"""The live page of a study: read-only, without Torch."""

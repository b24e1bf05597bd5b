"""Split rows into chunks of similar size."""

_ROWS = 16
"""Chunks are a multiple of this many rows, but for the last."""


def even_chunks(n: int, most: int) -> list[slice]:
    """Cut n rows into as few chunks of at most ``most`` as possible, of similar size: products of few rows are slow."""
    size = -(-n // max(1, -(-n // most)))
    size = min(most, max(_ROWS, size + -size % _ROWS))
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]

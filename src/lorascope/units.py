"""Convert and format units: bytes are stored as bytes and seconds as seconds until they are shown."""

import re
from collections.abc import Iterable

MEGABYTE = 1_000_000
GIGABYTE = 1_000_000_000
DTYPE_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of one value of a precision."""
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b\s*", re.IGNORECASE)


def lora_parameters(rank: int, features: Iterable[tuple[int, int]]) -> int:
    """Count the parameters of A and B over layers of (in_features, out_features)."""
    return rank * sum(n_in + n_out for n_in, n_out in features)


def to_megabytes(n_bytes: float) -> float:
    """Convert bytes to MB (10^6 bytes)."""
    return n_bytes / MEGABYTE


def from_megabytes(megabytes: float) -> float:
    """Convert MB (10^6 bytes) to bytes."""
    return megabytes * MEGABYTE


def parse_bytes(text: str) -> int:
    """Read a size: 512 B, 50 MB, 8GB (10^9 bytes), 7.5GiB (2^30 bytes).

    Raises:
        ValueError: there is no number, or no unit.
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(text)
    number, prefix, binary = found.groups()
    base = 1024.0 if binary else 1000.0
    return round(float(number) * base ** " kmgt".index(prefix.lower() or " "))


def format_bytes(n_bytes: float) -> str:
    """Write a size with a decimal prefix: 512 B, 3.1 MB, 1.24 GB."""
    if n_bytes >= GIGABYTE:
        return f"{n_bytes / GIGABYTE:.2f} GB"
    if n_bytes >= MEGABYTE:
        return f"{n_bytes / MEGABYTE:.1f} MB"
    return f"{n_bytes / 1000:.1f} kB" if n_bytes >= 1000 else f"{n_bytes:.0f} B"


def to_gigabytes(n_bytes: float) -> float:
    """Convert bytes to GB (10^9 bytes)."""
    return n_bytes / GIGABYTE


def to_minutes(seconds: float) -> float:
    """Convert seconds to minutes."""
    return seconds / 60

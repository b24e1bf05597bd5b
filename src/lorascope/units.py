"""Convert and format units: bytes are stored as bytes and seconds as seconds until they are shown."""

import re
from collections.abc import Iterable

MEGABYTE = 1_000_000
GIGABYTE = 1_000_000_000
DTYPE_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of one value of a precision."""
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b\s*", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(h|min|m|s)", re.IGNORECASE)
_DURATIONS = re.compile(r"\s*(?:\d+(?:\.\d+)?\s*(?:h|min|m|s)\s*)+", re.IGNORECASE)
_UNIT_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0}


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


def parse_seconds(text: str) -> float:
    """Read a time: 90s, 20min, 1.5h, 1h30min.

    Raises:
        ValueError: there is no number above 0, or no unit.
    """
    parts = _DURATION.findall(text) if _DURATIONS.fullmatch(text) else []
    seconds = sum(float(number) * _UNIT_SECONDS[unit[0].lower()] for number, unit in parts)
    if not seconds:
        raise ValueError(text)
    return seconds


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

"""The only file that converts units: bytes are stored as bytes and seconds as seconds until they are shown.

Sizes, counts, durations and dates are written in the language in use; a decimal point and a comma between thousands
are the same in all of them.
"""

import re
from datetime import datetime

from lorascope.text.language import current_language, tr

MEGABYTE = 1_000_000
GIGABYTE = 1_000_000_000
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b\s*", re.IGNORECASE)


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


def format_seconds(seconds: float) -> str:
    """Write a duration as people say it: 0.84 s, 12.3 s, 4 min 05 s, 2 h 03 min."""
    if seconds < 10:
        return tr("{seconds:.2f} s", seconds=seconds)
    if seconds < 60:
        return tr("{seconds:.1f} s", seconds=seconds)
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return tr("{minutes} min {seconds:02d} s", minutes=minutes, seconds=rest)
    hours, minutes = divmod(minutes, 60)
    return tr("{hours} h {minutes:02d} min", hours=hours, minutes=minutes)


def format_count(count: float) -> str:
    """Write a large count short: 921, 20.6 k, 3.4 M, 1.2 B."""
    code = current_language()
    if code != "en" and count >= 1e4:
        from babel.numbers import format_compact_decimal  # noqa: PLC0415 - English does without

        # Korean counts in groups of four digits; three digits in all are enough to read
        leading = (len(str(round(count))) - 1) % 4 + 1
        return format_compact_decimal(round(count), locale=code, fraction_digits=max(0, 3 - leading))
    for limit, letter in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if count >= limit:
            return f"{count / (1000 if letter == 'k' else limit):.1f} {letter}"
    return f"{count:,.0f}"


def to_gigabytes(n_bytes: float) -> float:
    """Convert bytes to GB (10^9 bytes)."""
    return n_bytes / GIGABYTE


def to_minutes(seconds: float) -> float:
    """Convert seconds to minutes."""
    return seconds / 60


def format_time(moment: str) -> str:
    """Write a point in time, given in ISO 8601: in English as it is, else as people who speak the language do."""
    code = current_language()
    if code == "en":
        return moment
    from babel.dates import format_date  # noqa: PLC0415 - English does without

    found = datetime.fromisoformat(moment)
    zone = f" ({found.tzname()})" if found.tzinfo else ""
    return f"{format_date(found, format='long', locale=code)} {found:%H:%M:%S}{zone}"

import re

import pytest

from lorascope.units import format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("8GB", 8_000_000_000),
        ("8GiB", 8 * 2**30),
        ("7.5 gib", 7.5 * 2**30),
        ("50 MB", 50_000_000),
        ("1MiB", 2**20),
        ("2kB", 2000),
        ("2KiB", 2048),
        ("1.5TB", 1_500_000_000_000),
        ("512 B", 512),
    ],
)
def test_a_size_is_read_with_its_unit(text: str, n_bytes: float) -> None:
    assert parse_bytes(text) == n_bytes


@pytest.mark.parametrize(
    "text", ["", "8", "GB", "-8GB", "8G", "8 elephants", "8GBs", "1e9B", "nanGB", "infGB", "8,5GB", "iB"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        parse_bytes(text)


def test_a_size_that_was_written_reads_the_same() -> None:
    assert parse_bytes(format_bytes(1_240_000_000)) == 1_240_000_000

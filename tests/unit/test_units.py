import re

import pytest

from lorascope.text.language import language
from lorascope.text.numbers import format_count, format_seconds, format_time
from lorascope.units import format_bytes, parse_bytes, parse_seconds


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
def test_wrong_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        parse_bytes(text)


def test_a_size_that_was_written_reads_the_same() -> None:
    assert parse_bytes(format_bytes(1_240_000_000)) == 1_240_000_000


def test_durations_counts_and_dates_are_written_in_the_language_in_use() -> None:
    moment = "2026-11-22T13:05:09+09:00"
    assert [format_seconds(seconds) for seconds in (0.836, 12.34, 245, 7384)] == [
        "0.84 s", "12.3 s", "4 min 05 s", "2 h 03 min",
    ]  # fmt: skip
    assert [format_count(count) for count in (921, 9210, 20_600, 134_515_008)] == ["921", "9,210", "20.6 k", "134.5 M"]
    assert format_time(moment) == moment
    with language("ko"):
        assert [format_seconds(seconds) for seconds in (0.836, 12.34, 245, 7384)] == [
            "0.84초", "12.3초", "4분 05초", "2시간 03분",
        ]  # fmt: skip
        assert [format_count(count) for count in (921, 9210, 20_600, 645_120, 10_321_920, 134_515_008)] == [
            "921", "9,210", "2.06만", "64.5만", "1032만", "1.35억",
        ]  # fmt: skip
        assert format_time(moment) == "2026년 11월 22일 13:05:09 (UTC+09:00)"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("20min", 1200), ("1.5h", 5400), ("1h30min", 5400), ("1 h 5 m 10 s", 3910), ("2 Min", 120)],
)
def test_a_time_is_read_with_its_unit(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", [" ", "20", "0min", "-5min", "5 days", "min", "1h x"])
def test_a_time_without_number_or_unit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        parse_seconds(text)

"""Downsampled series keep peaks and sums, and incremental reads equal one full read."""

import math
import random
from pathlib import Path

import pytest

import long_studies
from lorascope.records import StepRecord
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from lorascope.store.live import Bucket, LiveStore
from lorascope.web.series import MAX_POINTS, LineReader, SeriesReader, bucket_size, recent_mean
from lorascope.web.snapshot import read_snapshot


def row(position: int, value: float, weight: float = 2.0) -> Bucket:
    return Bucket(position=position, x=position, total=value * weight, weight=weight, low=value, high=value)


def rows(count: int, start: int = 1) -> list[Bucket]:
    values = random.Random(count)
    return [row(position, values.uniform(1, 3), values.randint(1, 9)) for position in range(start, start + count)]


def joined(buckets: list[Bucket], size: int) -> list[Bucket]:
    """What the store's query returns for a size."""
    groups: dict[int, list[Bucket]] = {}
    for bucket in buckets:
        groups.setdefault(bucket.position // size, []).append(bucket)
    return [
        Bucket(
            position=group[-1].position, x=group[-1].x, total=math.fsum(b.total for b in group),
            weight=sum(b.weight for b in group), low=min(b.low for b in group), high=max(b.high for b in group),
        )
        for group in groups.values()
    ]  # fmt: skip


class Written:
    """Rows as a store holds them; counts the rows that are read."""

    def __init__(self) -> None:
        self.rows: list[Bucket] = []
        self.n_read = 0

    @property
    def last(self) -> int:
        return self.rows[-1].position if self.rows else 0

    def read(self, after: int, size: int) -> list[Bucket]:
        new = [bucket for bucket in self.rows if bucket.position > after]
        self.n_read += len(new)
        return joined(new, size)

    def update(self, line: LineReader) -> list[Bucket]:
        return list(line.update(self.last, bucket_size(self.last), self.read))


@pytest.mark.parametrize("count", [1, MAX_POINTS - 1, MAX_POINTS, 5000, 100_000])
def test_series_of_any_length_has_few_points_with_peaks_and_mean(count: int) -> None:
    store = Written()
    store.rows = rows(count)
    store.rows[count // 2] = row(count // 2 + 1, 40.0)
    line = store.update(LineReader())
    assert len(line) <= MAX_POINTS
    assert count < MAX_POINTS or len(line) >= MAX_POINTS // 2
    assert max(bucket.high for bucket in line) == 40.0
    assert min(bucket.low for bucket in line) == min(bucket.low for bucket in store.rows)
    assert line[-1].x == count
    assert sum(b.total for b in line) == pytest.approx(math.fsum(b.total for b in store.rows), rel=1e-12)


@pytest.mark.parametrize("portions", [[1] * 900, [300, 1, 1, 2000, 5, 400], [4000]])
def test_series_is_independent_of_portions(portions: list[int]) -> None:
    store, reader = Written(), LineReader()
    for portion in portions:
        store.rows += rows(portion, store.last + 1)
        line = store.update(reader)
    assert line == joined(store.rows, bucket_size(store.last))


def test_series_follows_a_store_that_grows_and_is_truncated() -> None:
    chance = random.Random(5)
    store, reader = Written(), LineReader()
    for _ in range(300):
        if chance.random() < 0.05:
            store.rows = store.rows[: chance.randint(0, len(store.rows))]
            reader.invalidate()
        else:
            store.rows += rows(chance.randint(0, 40), store.last + 1)
        line = store.update(reader)
        assert line == joined(store.rows, bucket_size(store.last))
        assert len({bucket.position // bucket_size(store.last) for bucket in line}) == len(line) <= MAX_POINTS


def test_series_update_rereads_only_the_last_bucket() -> None:
    store, reader = Written(), LineReader()
    store.rows = rows(3000)
    line = store.update(reader)
    store.n_read = 0
    assert store.update(reader) == line
    assert store.n_read == 0
    store.rows += rows(1, store.last + 1)
    store.update(reader)
    assert 1 <= store.n_read <= bucket_size(store.last)


def test_series_is_reread_after_dropped_steps() -> None:
    store, reader = Written(), LineReader()
    store.rows = rows(10)
    store.update(reader)
    store.rows = store.rows[:6]
    assert [bucket.x for bucket in store.update(reader)] == [1, 2, 3, 4, 5, 6]


def test_series_is_reread_after_replaced_steps() -> None:
    """Between two polls rows were dropped and written again with other values, and more of them."""
    store, reader = Written(), LineReader()
    store.rows = rows(10)
    before = store.update(reader)
    reader.invalidate()
    assert store.update(reader) == before
    store.rows = [*store.rows[:6], *(row(position, 9.0) for position in range(7, 13))]
    assert [bucket.mean for bucket in store.update(reader)][6:] == [9.0] * 6


def test_series_keeps_distant_evaluations() -> None:
    records = [row(0, 2.0), row(25_000, 1.5), row(25_010, 1.4), row(100_000, 1.2)]
    line = LineReader().update(100_000, 1, lambda after, size: [row for row in records if row.position > after])
    assert [bucket.x for bucket in line] == [0, 25_000, 25_010, 100_000]


def test_series_recent_mean_is_that_of_the_last_tenth() -> None:
    assert recent_mean([]) is None
    line = [row(step, 5.0) for step in range(1, 91)] + [row(step, 1.0) for step in range(91, 101)]
    assert recent_mean(line) == pytest.approx(1.0)


def test_series_hold_every_step_once(tmp_path: Path) -> None:
    long_studies.write(tmp_path / "study", StudySpec(ranks=(8,)), total_steps=1000, done=900)
    with StudyStore.open(tmp_path / "study" / "study.db") as store:
        nats = {record.step: record.nats for record in store.read(StepRecord, trial_id="r8")}
    with LiveStore.open(tmp_path / "study" / "study.db") as store, store.read_transaction():
        series = SeriesReader().read(store, read_snapshot(store, StudySpec(ranks=(8,))))
    begin, line = 1, series["train"]["r8"]
    for bucket in line:
        inside = [nats[step] for step in range(begin, int(bucket.x) + 1)]
        assert bucket.total == pytest.approx(math.fsum(inside), rel=1e-12)
        assert (bucket.low, bucket.high) == (min(inside) / 200, max(inside) / 200)
        begin = int(bucket.x) + 1
    assert begin == 901
    assert [bucket.x for bucket in series["eval"]["r8"]] == list(range(0, 901, 100))
    assert len(series["memory"]["rss_bytes"]) == 60

"""Thinning keeps peaks and sums; whoever comes back gets every point once."""

import math
import random

import pytest

from lorascope.store.live import Bucket
from lorascope.web.series import MAX_POINTS, Follower, LiveSeries


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
    """Rows as a store holds them; counts what was read."""

    def __init__(self) -> None:
        self.rows: list[Bucket] = []

    @property
    def last(self) -> int:
        return self.rows[-1].position if self.rows else 0

    def read(self, after: int, size: int) -> list[Bucket]:
        return joined([bucket for bucket in self.rows if bucket.position > after], size)


@pytest.mark.parametrize("count", [1, MAX_POINTS - 1, MAX_POINTS, 5000, 100_000])
def test_a_line_of_any_length_is_few_points_with_its_peaks_and_its_mean(count: int) -> None:
    written = rows(count)
    written[count // 2] = row(count // 2 + 1, 40.0)
    curve = LiveSeries()
    curve.extend(written, 1)
    _, points = curve.since(0)
    assert len(points) <= MAX_POINTS
    assert count < MAX_POINTS or len(points) >= MAX_POINTS // 2
    assert max(high for *_, high in points) == 40.0
    assert min(low for *_, low, _ in points) == min(bucket.low for bucket in written)
    assert points[-1][1] == count
    assert sum(b.total for b in curve._buckets) == pytest.approx(math.fsum(b.total for b in written), rel=1e-12)


@pytest.mark.parametrize("portions", [[1] * 900, [300, 1, 1, 2000, 5, 400], [4000]])
def test_it_does_not_matter_in_what_portions_rows_come(portions: list[int]) -> None:
    store, follower = Written(), Follower()
    for version, portion in enumerate(portions, 1):
        store.rows += rows(portion, store.last + 1)
        follower.follow(store.last, store.read, version)
    whole = joined(store.rows, follower.curve.size)
    _, points = follower.curve.since(0)
    assert [point[1] for point in points] == [bucket.x for bucket in whole]
    assert [point[2] for point in points] == pytest.approx([b.total / b.weight for b in whole], rel=1e-12)
    assert [point[3:] for point in points] == [(bucket.low, bucket.high) for bucket in whole]


def test_who_saw_any_version_has_the_whole_line_after_the_next_answer() -> None:
    """As the page does it: points are put in place by their number, and a line that starts anew is emptied first."""
    chance = random.Random(5)
    store, follower = Written(), Follower()
    seen, page = 0, []
    for version in range(1, 300):
        if chance.random() < 0.05:
            store.rows = store.rows[: chance.randint(0, len(store.rows))]
            follower.doubt()
        else:
            store.rows += rows(chance.randint(0, 40), store.last + 1)
        follower.follow(store.last, store.read, version)
        if chance.random() < 0.4:
            anew, points = follower.curve.since(seen)
            page = [] if anew else page
            for point in points:
                if page and page[-1][0] == point[0]:
                    page[-1] = point
                else:
                    page.append(point)
            seen = version
            assert page == follower.curve.since(0)[1]
            assert follower.curve.since(seen) == (False, [])
            assert len({point[0] for point in page}) == len(page)


def test_nothing_new_sends_nothing_and_one_row_sends_one_point() -> None:
    store, follower = Written(), Follower()
    store.rows = rows(3000)
    assert follower.follow(store.last, store.read, 1)
    assert not follower.follow(store.last, store.read, 2)
    assert follower.curve.since(1) == (False, [])
    store.rows += rows(1, store.last + 1)
    follower.follow(store.last, store.read, 3)
    assert len(follower.curve.since(1)[1]) == 1


def test_a_run_that_continues_from_its_checkpoint_is_followed_back() -> None:
    store, follower = Written(), Follower()
    store.rows = rows(10)
    follower.follow(store.last, store.read, 1)
    store.rows = store.rows[:6]
    follower.follow(store.last, store.read, 2)
    anew, points = follower.curve.since(1)
    assert anew
    assert [point[1] for point in points] == [1, 2, 3, 4, 5, 6]


def test_a_run_that_was_cut_back_and_is_further_already_is_read_again() -> None:
    """Between two looks rows were dropped and came again with other values, and more."""
    store, follower = Written(), Follower()
    store.rows = rows(10)
    follower.follow(store.last, store.read, 1)
    follower.doubt()
    assert not follower.follow(store.last, store.read, 2)
    store.rows = [*store.rows[:6], *(row(position, 9.0) for position in range(7, 13))]
    follower.follow(store.last, store.read, 3)
    assert [point[2] for point in follower.curve.since(0)[1]][6:] == [9.0] * 6


def test_evaluations_far_apart_stay_apart() -> None:
    follower = Follower(sparse=True)
    records = [row(0, 2.0), row(25_000, 1.5), row(25_010, 1.4), row(100_000, 1.2)]
    follower.follow(100_000, lambda after, size: [record for record in records if record.position > after], 1)
    assert [point[1] for point in follower.curve.since(0)[1]] == [0, 25_000, 25_010, 100_000]


def test_the_last_tenth_is_what_stands_in_the_table() -> None:
    curve = LiveSeries()
    assert curve.last is None
    curve.extend([row(step, 5.0) for step in range(1, 91)] + [row(step, 1.0) for step in range(91, 101)], 1)
    assert curve.last == pytest.approx(1.0)

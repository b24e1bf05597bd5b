"""Downsampling keeps peaks, and labels do not overlap."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorascope.charts.downsample import group_ends, group_sums, keep_peaks
from lorascope.charts.label_layout import spread


def test_short_curve_is_kept_whole() -> None:
    assert keep_peaks(np.array([3.0, 1.0, 2.0]), 600).tolist() == [0, 1, 2]
    assert keep_peaks(np.array([]), 600).tolist() == []


def test_single_peak_among_100_000_points_is_kept() -> None:
    values = np.zeros(100_000)
    values[54_321], values[76_543] = 9.0, -9.0
    kept = keep_peaks(values, 600)
    assert {0, 54_321, 76_543, 99_999} <= set(kept.tolist())
    assert len(kept) <= 600


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=500), st.integers(8, 60))
def test_every_bucket_keeps_its_lowest_and_highest(values: list[float], most: int) -> None:
    kept = keep_peaks(np.array(values), most)
    assert len(kept) <= max(most, 1)
    assert (np.diff(kept) > 0).all()
    chosen = [values[place] for place in kept]
    assert (min(chosen), max(chosen)) == (min(values), max(values))
    assert (chosen[0], chosen[-1]) == (values[0], values[-1])


def test_buckets_cover_every_point_once() -> None:
    values = np.arange(10.0)
    assert group_sums(values, 3).sum() == 45
    assert group_sums(values, 3).tolist() == [3.0, 12.0, 30.0]
    assert group_ends(10, 3).tolist() == [2, 5, 9]
    assert group_sums(values, 600).tolist() == values.tolist()


def test_labels_far_apart_do_not_move() -> None:
    assert spread([3.0, 1.0, 2.0], 0.0, 4.0, 0.5) == (3.0, 1.0, 2.0)
    assert spread([], 0.0, 1.0, 0.1) == ()


def test_labels_at_one_place_are_centred() -> None:
    assert spread([2.0, 2.0, 2.0], 0.0, 4.0, 0.5) == pytest.approx((1.5, 2.0, 2.5))
    assert spread([0.0, 0.0], 0.0, 4.0, 0.5) == pytest.approx((0.0, 0.5))
    assert spread([4.0, 4.0], 0.0, 4.0, 0.5) == pytest.approx((3.5, 4.0))


@given(st.lists(st.floats(0, 10), min_size=1, max_size=12), st.floats(0.01, 2))
def test_labels_keep_order_bounds_and_distance(values: list[float], gap: float) -> None:
    placed = spread(values, 0.0, 10.0, gap)
    room = min(gap, 10 / max(len(values) - 1, 1))
    order = sorted(range(len(values)), key=lambda place: (placed[place], place))
    assert [values[place] for place in order] == sorted(values)
    in_order = [placed[place] for place in order]
    assert all(after - before >= room * (1 - 1e-6) - 1e-9 for before, after in pairwise(in_order))
    assert min(placed) >= -1e-9
    assert max(placed) <= 10 + 1e-9

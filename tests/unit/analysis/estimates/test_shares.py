"""Intervals of solved rows: by hand with one seed, covering in a short simulation, never without a width."""

import numpy as np
import pytest
from scipy.stats import t

from lorascope.analysis.estimates.paired import SeedRows, differences
from lorascope.analysis.estimates.shares import is_binary, share_differences, share_levels
from share_simulation import Shares, coverage, make_rows


def rows_of(*seeds: str) -> SeedRows:
    """Rows from texts of 0 and 1, one a seed."""
    values = np.array([[float(sign) for sign in seed] for seed in seeds])
    return SeedRows(nats=values, target_tokens=np.ones(values.shape[1]))


def test_one_seed_by_hand() -> None:
    """Three rows that only the first solves, one that only the second does, and half of one each."""
    first, second = rows_of("1111" + "1" * 8 + "0" * 8), rows_of("0001" + "1" * 8 + "1" + "0" * 7)
    found = share_differences([first, second])[0, 1]
    n, apart = 21, (3 - 1) / 21
    influences = np.array([1.0] * 3 + [0.0] * 8 + [-1.0] + [0.0] * 8)
    squares = ((influences - apart) ** 2 / 20**2).sum() + 2 * (0.5**0.5) ** 2 / 20.5**2
    assert found.value == pytest.approx(apart)
    assert found.variance == pytest.approx(squares * 21 / 22, rel=0.005)  # the jackknife's factor
    assert found.degrees == n
    interval = found.interval()
    assert interval.high - apart == pytest.approx(t.ppf(0.975, n) * found.variance**0.5)


def test_equal_ranks_have_a_width() -> None:
    same = rows_of("1" * 30), rows_of("1" * 30)
    assert differences(list(same))[0, 1].variance == 0
    interval = share_differences(same)[0, 1].interval()
    assert interval.low < -0.04 < 0.04 < interval.high
    level = share_levels(same)[0].interval()
    assert 0.8 < level.low < 0.95


def test_seeds_widen_the_interval_as_they_do_that_of_a_loss() -> None:
    still, moving = rows_of("10" * 30, "10" * 30), rows_of("1" * 60, "0" * 60)
    other = rows_of("01" * 30, "01" * 30)
    assert share_differences([still, other])[0, 1].seeds_variance == 0
    wide, of_loss = share_differences([moving, other])[0, 1], differences([moving, other])[0, 1]
    assert wide.seeds_variance == pytest.approx(of_loss.seeds_variance, rel=0.05)


def test_only_ones_and_zeros_that_count_once_are_binary() -> None:
    assert is_binary([rows_of("0110")])
    assert not is_binary([rows_of("01"), SeedRows(nats=np.array([[0.5, 1.0]]), target_tokens=np.ones(2))])
    assert not is_binary([SeedRows(nats=np.array([[0.0, 1.0]]), target_tokens=np.array([2.0, 1.0]))])


@pytest.mark.parametrize(
    "truth",
    [
        Shares(rates=(0.5, 0.6), rows=64),
        Shares(rates=(0.9, 0.85), rows=256),
        Shares(rates=(0.02, 0.02), rows=256),
        Shares(rates=(0.5, 0.5), rows=64, seeds=3),
    ],
)
def test_simulated_intervals_of_solved_rows_cover(truth: Shares) -> None:
    found = coverage(truth, 400)
    assert 0.92 <= found.difference <= 0.995
    assert 0.92 <= found.level <= 0.998


def test_simulated_few_telling_rows_never_feign_precision() -> None:
    """Where hardly a row tells two ranks apart, a loss's interval misses far more often than it says."""
    found = coverage(Shares(rates=(0.05, 0.02), rows=20), 300)
    assert found.telling < 2
    assert found.difference >= 0.95
    assert found.plain < 0.8


def test_simulated_rows_have_the_given_rates() -> None:
    truth = Shares(rates=(0.1, 0.7), rows=40_000, seeds=2)
    first, second = make_rows(truth, np.random.default_rng(3))
    assert first.nats.shape == (2, 40_000)
    assert (first.loss, second.loss) == pytest.approx((0.1, 0.7), abs=0.06)

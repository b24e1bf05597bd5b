"""Intervals and p-values over rows and seeds, against SciPy, resampling, and variances worked out another way."""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from lorascope.analysis.estimates.holm import holm
from lorascope.analysis.estimates.looks import seed_rows
from lorascope.analysis.estimates.paired import SeedRows, Uncertain, differences, losses

TOKENS = 20.0


def equal_rows(*losses_SN: np.ndarray) -> list[SeedRows]:
    """Ranks whose rows all have as many tokens, from losses a token."""
    tokens = np.full(losses_SN[0].shape[1], TOKENS)
    return [SeedRows(nats=TOKENS * found, target_tokens=tokens) for found in losses_SN]


def uneven_rows(n_rows: int, seed: int) -> list[SeedRows]:
    """Two ranks, one seed, heavy-tailed rows of very different lengths."""
    random = np.random.default_rng(seed)
    tokens = np.maximum(2, np.round(60 * np.exp(random.normal(0, 0.7, n_rows))))
    hardness = random.normal(2, 0.5, n_rows)
    return [
        SeedRows(nats=(tokens * (hardness + 0.02 * random.standard_t(4, n_rows)))[None], target_tokens=tokens)
        for _ in range(2)
    ]


def test_paired_interval_of_equal_rows_is_the_paired_t_test() -> None:
    random = np.random.default_rng(1)
    first, second = random.normal(1.0, 0.2, (1, 120)), random.normal(0.98, 0.2, (1, 120))
    found = differences(equal_rows(first, second))[0, 1]
    expected = stats.ttest_rel(first[0], second[0])
    interval = expected.confidence_interval(0.95)
    assert found.degrees == 119
    assert found.value == pytest.approx((first - second).mean(), rel=1e-12)
    assert (found.interval().low, found.interval().high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found.chance_within(0.0) == pytest.approx(expected.pvalue, rel=1e-9)


def test_equivalence_is_the_two_one_sided_tests_of_scipy() -> None:
    random = np.random.default_rng(2)
    gaps = random.normal(0.001, 0.02, (1, 150))
    found = differences(equal_rows(1 + gaps, np.ones((1, 150))))[0, 1]
    below = stats.ttest_1samp(gaps[0], 0.005, alternative="less").pvalue
    above = stats.ttest_1samp(gaps[0], -0.005, alternative="greater").pvalue
    assert found.chance_below(0.005) == pytest.approx(below, rel=1e-9)
    assert found.turned().chance_below(0.005) == pytest.approx(above, rel=1e-9)


def test_superiority_is_tested_at_the_tolerance() -> None:
    gaps = np.random.default_rng(3).normal(-0.02, 0.05, (1, 80))
    found = differences(equal_rows(1 + gaps, np.ones((1, 80))))[0, 1]
    one_sided = stats.ttest_1samp(gaps[0], -0.005, alternative="less").pvalue
    assert found.chance_within(0.005) == pytest.approx(2 * one_sided, rel=1e-9)


@pytest.mark.parametrize(("n_rows", "seed"), [(100, 5), (256, 6)])
def test_paired_interval_of_uneven_rows_matches_scipy_bootstrap(n_rows: int, seed: int) -> None:
    ranks = uneven_rows(n_rows, seed)

    def gap(first: np.ndarray, second: np.ndarray, tokens: np.ndarray, axis: int) -> np.ndarray:
        return (first - second).sum(axis=axis) / tokens.sum(axis=axis)

    expected = stats.bootstrap(
        (ranks[0].nats[0], ranks[1].nats[0], ranks[0].target_tokens), gap, paired=True, vectorized=True,
        n_resamples=4000, method="percentile", rng=np.random.default_rng(7),
    ).confidence_interval  # fmt: skip
    found = differences(ranks)[0, 1].interval()
    width = expected.high - expected.low
    assert found.low == pytest.approx(expected.low, abs=0.06 * width)
    assert found.high == pytest.approx(expected.high, abs=0.06 * width)


def test_row_variance_is_the_jackknife() -> None:
    ranks = uneven_rows(40, 8)
    nats, tokens = ranks[0].nats[0] - ranks[1].nats[0], ranks[0].target_tokens
    without = np.array([np.delete(nats, n).sum() / np.delete(tokens, n).sum() for n in range(40)])
    jackknife = 39 / 40 * ((without - without.mean()) ** 2).sum()
    assert differences(ranks)[0, 1].variance == pytest.approx(jackknife, rel=1e-9)


def test_seed_variance_is_that_of_a_randomised_block_design() -> None:
    losses_KS = np.random.default_rng(9).normal(1.0, 0.01, (3, 5))
    found = differences(equal_rows(*(np.repeat(row[:, None], 60, axis=1) for row in losses_KS)))
    residuals = losses_KS - losses_KS.mean(axis=1, keepdims=True) - losses_KS.mean(axis=0) + losses_KS.mean()
    error = (residuals**2).sum() / (2 * 4)
    for (i, j), difference in found.items():
        assert difference.degrees == 2 * 4
        assert difference.variance == pytest.approx(2 * error / 5, rel=1e-9)
        t = (losses_KS[i] - losses_KS[j]).mean() / math.sqrt(2 * error / 5)
        assert difference.chance_within(0.0) == pytest.approx(2 * stats.t.sf(abs(t), 8), rel=1e-7)


def test_seed_variance_of_two_ranks_is_the_paired_t_test() -> None:
    first, second = np.random.default_rng(10).normal(1.0, 0.01, (2, 4))
    found = differences(equal_rows(*(np.repeat(row[:, None], 60, axis=1) for row in (first, second))))[0, 1]
    assert found.chance_within(0.0) == pytest.approx(stats.ttest_rel(first, second).pvalue, rel=1e-7)


@pytest.mark.parametrize(
    ("seeds_sd", "row_sd", "shared_sd"), [(0.004, 0.03, 0.03), (0.0, 0.0, 0.03), (0.0, 0.03, 0.0), (0.004, 0.0, 0.0)]
)
def test_variance_components_add_up(seeds_sd: float, row_sd: float, shared_sd: float) -> None:
    """Mean of the estimated variances over many studies beside the variance of their estimates.

    Noise of rows alone, in all seeds or in one, is not counted a second time as noise of seeds.
    """
    random = np.random.default_rng(11)
    n_seeds, n_rows = 4, 150
    values, variances = [], []
    for _ in range(600):
        gaps = (
            seeds_sd * random.normal(size=(n_seeds, 1))
            + row_sd * random.normal(size=n_rows)
            + shared_sd * random.normal(size=(n_seeds, n_rows))
        )
        found = differences(equal_rows(1 + gaps, np.ones((n_seeds, n_rows))))[0, 1]
        values.append(found.value)
        variances.append(found.variance)
    truth = seeds_sd**2 / n_seeds + row_sd**2 / n_rows + shared_sd**2 / (n_seeds * n_rows)
    assert np.var(values) == pytest.approx(truth, rel=0.2)
    assert np.mean(variances) == pytest.approx(truth, rel=0.1)


def test_shared_seed_effects_cancel_in_differences() -> None:
    random = np.random.default_rng(13)
    together = 0.05 * random.normal(size=(3, 1))
    ranks = equal_rows(*(1 + together + 0.001 * random.normal(size=(3, 100)) for _ in range(2)))
    loss, difference = losses(ranks)[0], differences(ranks)[0, 1]
    assert loss.variance == pytest.approx(np.var(together[:, 0], ddof=1) / 3, rel=0.1)
    assert loss.degrees == 2
    assert difference.variance < 1e-3 * loss.variance


def test_one_seed_interval_covers_rows_only() -> None:
    (same,) = equal_rows(np.full((1, 30), 1.5))
    found = differences([same, same])[0, 1]
    assert (found.value, found.variance, found.degrees) == (0.0, 0.0, 29)
    assert (found.interval().low, found.interval().high) == (0.0, 0.0)
    assert (found.chance_below(0.005), found.chance_within(0.0)) == (0.0, 1.0)


def test_interval_is_one_or_two_sided() -> None:
    interval = Uncertain(value=1.0, variance=4.0, degrees=7).interval(below=0.01, above=0.1)
    assert interval.low == pytest.approx(1 - 2 * stats.t.isf(0.01, 7), rel=1e-9)
    assert interval.high == pytest.approx(1 + 2 * stats.t.isf(0.1, 7), rel=1e-9)


def test_seeds_are_pooled_without_rows_that_have_no_targets() -> None:
    rows = seed_rows([((1.0, 0.0, 5.0), (1, 0, 2)), ((3.0, 0.0, 3.0), (1, 0, 2))])
    assert rows.nats.tolist() == [[1.0, 5.0], [3.0, 3.0]]
    assert rows.target_tokens.tolist() == [1.0, 2.0]
    assert rows.losses.tolist() == [2.0, 2.0]
    assert rows.loss == 2.0


def test_holm_by_hand() -> None:
    # In order 0.01, 0.02, 0.03, 0.2: times 4, 3, 2, 1 = 0.04, 0.06, 0.06, 0.2.
    assert holm([0.02, 0.2, 0.01, 0.03]) == pytest.approx([0.06, 0.2, 0.04, 0.06])
    # The third would be 0.04 * 1, less than the second, 0.03 * 2: it takes the second's.
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.7, 0.9]) == [1.0, 1.0]
    assert holm([0.02, 0.03, 0.04], most_true=2) == pytest.approx([0.04, 0.06, 0.06])
    assert holm([]) == []


def test_holm_equals_the_step_down_rule() -> None:
    random = np.random.default_rng(14)
    for _ in range(200):
        chances = (random.uniform(size=5) ** 3).tolist()
        rejected = set()
        for done, place in enumerate(np.argsort(chances)):
            if chances[place] > 0.05 / (5 - done):
                break
            rejected.add(int(place))
        assert {place for place, chance in enumerate(holm(chances)) if chance <= 0.05} == rejected


def test_all_pairs_are_compared() -> None:
    ranks = equal_rows(*(np.random.default_rng(k).normal(1, 0.1, (2, 30)) for k in range(4)))
    assert list(differences(ranks)) == list(combinations(range(4), 2))

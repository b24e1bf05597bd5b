"""Chance of a verdict, against the share of made-up studies that had one."""

import math
from dataclasses import replace

import numpy as np
import pytest

from lorascope.analysis.estimates.noise import study_noise
from lorascope.analysis.verdict.chance import Stage, planned_stages, verdict_chance
from lorascope.analysis.verdict.next_look import Prices
from lorascope.costmodel.noise import ASSUMED, Noise
from made_up_studies import Truth, studies
from sequential_simulation import HELD, MOST_ROWS, PRICES
from verdict_simulation import truth_of

MUCH = replace(ASSUMED, seed=math.sqrt(2) * math.hypot(0.006, 0.001))
QUIET = Noise(
    row=ASSUMED.row / 2, row_of_seed=ASSUMED.row_of_seed / 2, seed=math.sqrt(2) * math.hypot(0.0005, 0.0003),
    target_tokens=60.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("ranks", "seeds", "rows", "noise", "equal", "worse"),
    [
        (3, 1, 256, ASSUMED, 0.378, None),
        (3, 2, 100, ASSUMED, 0.050, None),
        (3, 3, 256, ASSUMED, 0.203, 0.350),
        (3, 5, 256, ASSUMED, None, 0.513),
        (2, 3, 256, ASSUMED, 0.363, None),
        (6, 3, 256, ASSUMED, 0.045, None),
        (3, 3, 256, MUCH, 0.060, None),
        (3, 3, 256, QUIET, 0.963, None),
    ],
)
def test_chance_is_the_share_of_made_up_studies_with_a_verdict(
    ranks: int, seeds: int, rows: int, noise: Noise, equal: float | None, worse: float | None
) -> None:
    """The shares are of 400 studies each of benchmarks/verdict_simulation.py; effects of 0 and of 0.02."""
    found = verdict_chance(ranks, [Stage(seeds=seeds, rows=rows)], steps=80, tolerance=0.005, noise=noise)
    assert equal is None or found.if_equal == pytest.approx(equal, abs=0.1)
    assert worse is None or found.if_worse == pytest.approx(worse, abs=0.1)


@pytest.mark.parametrize(("noise", "equal", "worse"), [(ASSUMED, 0.855, 0.930), (MUCH, 0.195, None)])
def test_chance_of_a_sequential_study_is_that_of_made_up_ones(noise: Noise, equal: float, worse: float | None) -> None:
    """The shares are of 200 studies each of benchmarks/sequential_simulation.py."""
    stages = planned_stages(3, Stage(seeds=3, rows=HELD), rows=MOST_ROWS, prices=PRICES, noise=noise)
    assert (stages[-1].seeds, stages[-1].rows) == (8, MOST_ROWS)
    found = verdict_chance(3, stages, steps=80, tolerance=0.005, noise=noise)
    assert found.if_equal == pytest.approx(equal, abs=0.1)
    assert worse is None or found.if_worse == pytest.approx(worse, abs=0.1)


def test_the_smallest_difference_by_hand() -> None:
    """Four seeds and 100 rows; two ranks, so that the seeds' part has three degrees of freedom."""
    noise = Noise(row=0.03, row_of_seed=0.0, seed=0.004, target_tokens=60.0)
    of_rows, of_seeds = 0.03**2 / 100, 0.004**2 / 4
    degrees = 3 * (of_rows + of_seeds) / of_seeds / (1 + 1 / 9)
    quantile = 2.2710  # of Student's t with 8.775 degrees of freedom
    found = verdict_chance(2, [Stage(seeds=4, rows=100)], steps=80, tolerance=0.005, noise=noise)
    assert degrees == pytest.approx(8.775, abs=1e-3)
    assert found.smallest_difference == pytest.approx(quantile * math.sqrt(of_rows + of_seeds), rel=1e-4)


@pytest.mark.parametrize(("steps", "rows"), [(19, 256), (80, 19)])
def test_no_verdict_with_few_steps_or_rows(steps: int, rows: int) -> None:
    found = verdict_chance(2, [Stage(seeds=3, rows=rows)], steps=steps, tolerance=1.0, noise=ASSUMED)
    assert (found.if_equal, found.if_worse) == (0.0, 0.0)
    enough = verdict_chance(2, [Stage(seeds=3, rows=20)], steps=20, tolerance=1.0, noise=ASSUMED)
    assert (enough.if_equal, enough.if_worse) == (1.0, 1.0)


def test_further_data_fit_into_the_time() -> None:
    """Two ranks, three seeds: 100 more rows cost 600, a seed 2 trials and the rows of both ranks that it lacks."""
    prices = Prices(row=1.0, trial=1000.0, token_seconds=2.0)
    noise = Noise(row=0.03, row_of_seed=0.03, seed=0.0, target_tokens=60.0)

    def planned(seconds_left: float) -> list[Stage]:
        first = Stage(seeds=3, rows=100)
        return planned_stages(2, first, rows=200, prices=prices, noise=noise, seconds_left=seconds_left)

    first, rows, seed = Stage(seeds=3, rows=100), Stage(seeds=3, rows=200, seconds=1200.0), Stage(
        seeds=4, rows=200, seconds=1200.0 + 2 * 2 * 1100
    )  # fmt: skip
    assert planned(1199.0) == [first]
    assert planned(1200.0) == [first, rows]
    assert planned(5600.0) == [first, rows, seed]


def test_noise_of_finished_studies_is_that_which_they_were_made_with() -> None:
    truth = replace(truth_of(0.0, 4, 1000), rates=(3e-4,))
    found = [noise for study in studies(truth, 12, 3) if (noise := study_noise(study.data))]
    assert len(found) == 12
    for name, tolerance in (("row", 0.05), ("row_of_seed", 0.05), ("seed", 0.15), ("target_tokens", 0.05)):
        mean = math.sqrt(np.mean([getattr(noise, name) ** 2 for noise in found]))
        assert mean == pytest.approx(getattr(ASSUMED, name), rel=tolerance), name


@pytest.mark.parametrize(
    "truth",
    [
        Truth(floors={8: 1.0, 64: 1.0}, seeds=1, rows=100),
        Truth(floors={8: 1.0}, seeds=3, rows=100),
        Truth(floors={8: 1.0, 64: 1.0}, seeds=3, rows=19),
    ],
)
def test_noise_needs_two_ranks_two_seeds_and_rows(truth: Truth) -> None:
    assert study_noise(next(studies(truth, 1, 0)).data) is None

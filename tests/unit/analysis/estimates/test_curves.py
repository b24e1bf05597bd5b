"""Stable step and final spread of curves whose answer is known."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from lorascope.analysis.estimates.curves import final_spread, stable_step
from lorascope.records import StepRecord
from lorascope.store.columns import StepColumns


def curve(losses: Sequence[float], tokens: Sequence[int] | None = None) -> StepColumns:
    counts = tokens or [100] * len(losses)
    return StepColumns.of_records(
        StepRecord(
            trial_id="t", step=n, nats=loss * count, target_tokens=count, tokens=count, learning_rate=0.1,
            grad_norm=1.0, seconds=0.1, warmup=False, group=0,
        )
        for n, (loss, count) in enumerate(zip(losses, counts, strict=True), start=1)
    )  # fmt: skip


def test_stable_step_is_where_the_loss_stays_in_the_band() -> None:
    # fewer than 21 steps: the average is the loss itself
    assert stable_step([curve([2.0] * 8 + [1.0] * 10)], 1.0, 0.05) == 9
    assert stable_step([curve([2.0, 1.0, 1.0, 1.2, 1.04, 0.96, 1.0])], 1.0, 0.05) == 5


def test_stable_step_average_trails_by_its_window() -> None:
    # 100 steps, window 5: after the drop at step 41 the first five 1.0 are averaged at step 45
    assert stable_step([curve([2.0] * 40 + [1.0] * 60)], 1.0, 0.05) == 45
    # a wider zone takes four of five steps at the end and one before
    assert stable_step([curve([2.0] * 40 + [1.0] * 60)], 1.0, 0.25) == 44


def test_stable_step_of_a_flat_loss_is_the_first_full_window() -> None:
    assert stable_step([curve([1.0] * 100)], 1.0, 0.05) == 5
    assert stable_step([curve([1.0])], 1.0, 0.05) == 1


def test_stable_step_is_none_outside_the_band() -> None:
    assert stable_step([curve([1.0] * 10 + [2.0])], 1.0, 0.05) is None
    assert stable_step([curve([])], 1.0, 0.05) is None
    assert stable_step([], 1.0, 0.05) is None


def test_stable_step_pools_seeds_by_tokens_and_skips_nonfinite() -> None:
    one = curve([2.0, 1.0, 1.0, 1.0], [100, 300, 100, 100])
    other = curve([2.0, 1.2, math.nan, 1.0], [100, 100, 100, 100])
    # step 2: (300 + 120) / 400 = 1.05; step 3 is lost
    assert stable_step([one, other], 1.0, 0.051) == 2
    assert stable_step([one, other], 1.0, 0.049) == 4


def test_final_spread_is_that_of_the_last_tenth() -> None:
    losses = [9.0] * 18 + [1.0, 2.0]
    assert final_spread([curve(losses)]) == 0.5
    assert final_spread([curve([1.0] * 10)]) is None
    assert final_spread([]) is None


def test_final_spread_averages_variances_of_seeds() -> None:
    one, other = curve([5.0] * 18 + [1.0, 2.0]), curve([5.0] * 18 + [7.0, 10.0])
    assert final_spread([one, other]) == pytest.approx(math.sqrt((0.5**2 + 1.5**2) / 2))


def test_stable_step_of_a_long_noisy_curve() -> None:
    rng = np.random.default_rng(5)
    losses = 1.0 + np.exp(-np.arange(2000) / 100) + rng.normal(0, 0.1, 2000)
    found = stable_step([curve(losses.tolist())], 1.0, 0.05)
    assert found is not None
    # exp(-t / 100) = 0.05 at t = 300, the trailing mean over 100 steps lags by about 58 here
    assert 320 <= found <= 480

"""Losses and intervals, against numbers worked out by hand or by another route."""

import math

import numpy as np
import pytest

from lorascope.analysis.estimates import (
    RESAMPLES,
    RowLosses,
    evaluation_loss,
    final_train_loss,
    final_window,
    interval,
    last_finite,
    resampled_losses,
    row_losses,
)
from lorascope.records import EvalRecord, StepRecord


def evaluation(step: int, nats: tuple[float, ...], tokens: tuple[int, ...]) -> EvalRecord:
    return EvalRecord(trial_id="t", step=step, example_nats=nats, example_target_tokens=tokens, seconds=0.1)


def steps(*values: tuple[float, int]) -> list[StepRecord]:
    return [
        StepRecord(
            trial_id="t", step=n, nats=nats, target_tokens=tokens, tokens=tokens, learning_rate=0.1, grad_norm=1.0,
            seconds=0.1, warmup=False,
        )
        for n, (nats, tokens) in enumerate(values, start=1)
    ]  # fmt: skip


def rows(nats: list[float], tokens: list[float]) -> RowLosses:
    return RowLosses(nats=np.array(nats), target_tokens=np.array(tokens))


def test_a_loss_weighs_tokens_not_rows() -> None:
    assert evaluation_loss(evaluation(1, (2.0, 9.0), (1, 3))) == 11 / 4


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_none(bad: float) -> None:
    assert evaluation_loss(evaluation(1, (bad, 1.0), (1, 1))) is None
    assert evaluation_loss(evaluation(1, (), ())) is None


def test_the_last_finite_evaluation_after_training_began_is_taken() -> None:
    records = [evaluation(0, (9.0,), (1,)), evaluation(5, (3.0,), (1,)), evaluation(9, (math.nan,), (1,))]
    found = last_finite(records)
    assert found is not None
    assert found.step == 5
    assert last_finite(records[:1]) is None


@pytest.mark.parametrize(
    ("done", "epoch", "window"), [(1, None, 1), (9, 100, 1), (11, 100, 2), (30, 16, 3), (32, 16, 16), (48, 16, 16)]
)
def test_the_final_window_is_the_last_epoch_or_a_tenth(done: int, epoch: int | None, window: int) -> None:
    assert final_window(done, epoch) == window


def test_the_final_training_loss_weighs_tokens_and_skips_what_is_not_finite() -> None:
    records = steps(*[(100.0, 1)] * 9, (1.0, 1), (6.0, 3), (math.nan, 5))
    assert final_train_loss(records, None) == 7 / 4
    assert final_train_loss(steps((math.nan, 5)), None) is None
    assert final_train_loss([], None) is None


def test_seeds_are_averaged_row_by_row_and_rows_without_targets_left_out() -> None:
    merged = row_losses([evaluation(1, (1.0, 0.0, 4.0), (1, 0, 2)), evaluation(1, (3.0, 0.0, 4.0), (1, 0, 2))])
    assert merged.nats.tolist() == [2.0, 4.0]
    assert merged.target_tokens.tolist() == [1.0, 2.0]
    assert merged.loss == 2.0


def test_the_interval_agrees_with_the_normal_theory_of_a_ratio() -> None:
    rng = np.random.default_rng(3)
    tokens = rng.integers(5, 50, 400).astype(float)
    nats = tokens * rng.normal(2.0, 0.4, 400)
    low, high = interval(resampled_losses([rows(nats.tolist(), tokens.tolist())])[:, 0])
    loss = nats.sum() / tokens.sum()
    spread = math.sqrt(((nats - loss * tokens) ** 2).sum()) / tokens.sum()
    assert low == pytest.approx(loss - 1.96 * spread, abs=0.1 * spread)
    assert high == pytest.approx(loss + 1.96 * spread, abs=0.1 * spread)


def test_ranks_are_resampled_together_so_that_a_constant_difference_has_no_width() -> None:
    rng = np.random.default_rng(4)
    tokens = rng.integers(5, 50, 60).astype(float)
    nats = tokens * rng.normal(2.0, 0.4, 60)
    losses = resampled_losses([rows(nats.tolist(), tokens.tolist()), rows((nats + tokens).tolist(), tokens.tolist())])
    assert losses.shape == (RESAMPLES, 2)
    assert np.ptp(losses[:, 0]) > 0.1
    np.testing.assert_allclose(losses[:, 1] - losses[:, 0], 1.0, atol=1e-12)


def test_equal_records_give_equal_intervals_whatever_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    data = [rows([1.0, 2.0, 4.0], [1.0, 1.0, 2.0])]
    whole = resampled_losses(data)
    np.testing.assert_array_equal(whole, resampled_losses(data))
    monkeypatch.setattr("lorascope.analysis.estimates.CHUNK_VALUES", 300)
    np.testing.assert_array_equal(whole, resampled_losses(data))

"""Losses of records, against numbers worked out by hand."""

import math

import pytest

from lorascope.analysis.estimates.losses import final_train_loss, final_window
from lorascope.records import EvalRecord, StepRecord
from lorascope.store.columns import StepColumns


def evaluation(step: int, nats: tuple[float, ...], tokens: tuple[int, ...]) -> EvalRecord:
    return EvalRecord(trial_id="t", step=step, example_nats=nats, example_target_tokens=tokens, seconds=0.1)


def steps(*values: tuple[float, int]) -> StepColumns:
    return StepColumns.of_records(
        StepRecord(
            trial_id="t", step=n, nats=nats, target_tokens=tokens, tokens=tokens, learning_rate=0.1, grad_norm=1.0,
            seconds=0.1, warmup=False, group=0,
        )
        for n, (nats, tokens) in enumerate(values, start=1)
    )  # fmt: skip


def test_loss_is_weighted_by_tokens() -> None:
    assert evaluation(1, (2.0, 9.0), (1, 3)).loss == 11 / 4


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nonfinite_loss_is_none(bad: float) -> None:
    assert evaluation(1, (bad, 1.0), (1, 1)).loss is None
    assert evaluation(1, (), ()).loss is None


@pytest.mark.parametrize(
    ("done", "epoch", "window"), [(1, None, 1), (9, 100, 1), (11, 100, 2), (30, 16, 3), (32, 16, 16), (48, 16, 16)]
)
def test_final_window_is_the_last_epoch_or_a_tenth(done: int, epoch: int | None, window: int) -> None:
    assert final_window(done, epoch) == window


def test_final_train_loss_is_weighted_by_tokens_and_skips_nonfinite() -> None:
    records = steps(*[(100.0, 1)] * 9, (1.0, 1), (6.0, 3), (math.nan, 5))
    assert final_train_loss(records, None) == 7 / 4
    assert final_train_loss(steps((math.nan, 5)), None) is None
    assert final_train_loss(steps(), None) is None

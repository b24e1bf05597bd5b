"""The machine's pace on the study's own model: seconds of a token in training and in evaluation."""

import time
from collections.abc import Callable

import numpy as np

from lorascope.data.dataset import Example, Examples
from lorascope.engine.evaluate import example_nats
from lorascope.engine.step import train_step
from lorascope.engine.trial import TrainingTrial
from lorascope.measure.clock import StepClock
from lorascope.run.prepare import PreparedStudy
from lorascope.search.allocation import Pace
from lorascope.search.trials import plan_trials, planned_arms
from lorascope.search.work import TRAINING, Sizes

_TOKENS = 512
"""Most tokens of a measurement, unless a single row is longer."""
_LONG_SECONDS = 4.0


def measure_pace(study: PreparedStudy, sizes: Sizes) -> Pace:
    """Train and evaluate the largest rank on the rows of about one step, with a warm-up where that is quick."""
    record = max(plan_trials(study.spec), key=lambda trial: trial.rank)
    tokens = sizes.step_tokens * len(planned_arms(study.spec))
    rows = _typical_rows(study.splits.train, min(_TOKENS, tokens))
    spec = study.spec.model_copy(
        update={"per_device_train_batch_size": len(rows), "gradient_accumulation_steps": 1, "eval_steps": None}
    )
    frozen = study.frozen
    trial = TrainingTrial(record, spec, study.layers_of(record.targets), frozen.model.dtype, frozen.modules_to_save)

    def train() -> None:
        probe = StepClock(study.device)
        train_step(frozen, [trial], rows, spec, total_steps=2, probe=probe, warmup=False, check_stop=lambda: None)

    def evaluate() -> None:
        example_nats(frozen, 0, rows, spec, check_stop=lambda: None)

    frozen.attach([trial.adapter])
    try:
        training, evaluation = _seconds(train), _seconds(evaluate)
    finally:
        frozen.attach([])
    work = sum(row.n_tokens for row in rows) * sizes.token(record.arm)
    return Pace(training=training / work / TRAINING, evaluation=evaluation / work)


def _typical_rows(train: Examples, tokens: float) -> list[Example]:
    """Return rows of about the median length, up to so many tokens."""
    order = np.argsort(np.abs(train.n_tokens - np.median(train.n_tokens)), kind="stable")
    count = max(1, int(np.searchsorted(np.cumsum(train.n_tokens[order]), tokens, side="right")))
    return [train[int(row)] for row in order[:count]]


def _seconds(action: Callable[[], None]) -> float:
    """Time an action; the first time is a warm-up unless it took long."""
    for _ in range(2):
        began = time.perf_counter()
        action()
        seconds = time.perf_counter() - began
        if seconds > _LONG_SECONDS:
            break
    return seconds

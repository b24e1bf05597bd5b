"""The machine's pace on the study's own model: seconds of a token in training and in evaluation."""

import time
from dataclasses import dataclass

import numpy as np

from lorascope.engine.evaluate import example_nats
from lorascope.engine.step import train_step
from lorascope.engine.trial import TrainingTrial
from lorascope.measure.clock import StepClock
from lorascope.run.prepare import PreparedStudy
from lorascope.search.trials import plan_trials
from lorascope.search.work import TRAINING, Sizes

_TOKENS = 512
"""Tokens that a measurement takes, unless a single row is longer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """Seconds of a token that goes forward through the base."""

    training: float
    """In training, where each token counts three times."""
    evaluation: float


def measure_pace(study: PreparedStudy, sizes: Sizes) -> Pace:
    """Train and evaluate the largest rank on a few rows, twice each, and take the second time."""
    record = max(plan_trials(study.spec), key=lambda trial: trial.rank)
    train = study.splits.train
    order = np.argsort(np.abs(train.n_tokens - np.median(train.n_tokens)), kind="stable")
    count = max(1, int(np.searchsorted(np.cumsum(train.n_tokens[order]), _TOKENS, side="right")))
    rows = [train[int(row)] for row in order[:count]]
    spec = study.spec.model_copy(
        update={"per_device_train_batch_size": len(rows), "gradient_accumulation_steps": 1, "eval_steps": None}
    )
    frozen = study.frozen
    trial = TrainingTrial(record, spec, study.layers_of(record.targets), frozen.model.dtype, frozen.modules_to_save)
    frozen.attach([trial.adapter])
    try:
        tokens = sum(row.n_tokens for row in rows)
        for _ in range(2):
            began = time.perf_counter()
            train_step(
                frozen, [trial], rows, spec, total_steps=2, probe=StepClock(study.device), warmup=False,
                check_stop=lambda: None,
            )  # fmt: skip
            training = time.perf_counter() - began
        for _ in range(2):
            _, evaluation = example_nats(frozen, 0, rows, spec, check_stop=lambda: None)
    finally:
        frozen.attach([])
    work = tokens * sizes.token(record.arm)
    return Pace(training=training / work / TRAINING, evaluation=evaluation / work)

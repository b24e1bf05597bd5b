"""What is read off a training curve: where it settles, and how much its end spreads.

Shapes: T steps that every seed has.
"""

import math
from collections.abc import Sequence

import numpy as np

from lorascope.analysis.estimates import Floats
from lorascope.records import StepRecord

Curves = Sequence[Sequence[StepRecord]]
"""The steps of each seed."""


def stable_step(seeds: Curves, level: float, zone: float) -> int | None:
    """Find the step from which the averaged training loss stays within ``zone * level`` of ``level`` to the end.

    The average at a step is the loss over the tokens of the last twentieth of all steps up to it, all seeds together.
    None where the last average lies outside, or there are no steps.
    """
    steps, nats_T, tokens_T = _pooled(seeds)
    if not steps:
        return None
    window = math.ceil(len(steps) / 20)
    averages = _moving_sum(nats_T, window) / _moving_sum(tokens_T, window)
    outside = np.flatnonzero(np.abs(averages - level) > zone * level)
    first = int(outside[-1]) + 1 if len(outside) else 0
    return steps[window - 1 + first] if first < len(averages) else None


def final_spread(seeds: Curves) -> float | None:
    """Take the standard deviation of the losses of the last tenth of steps, root mean square over the seeds.

    None where no seed has two steps in it.
    """
    variances = []
    for records in seeds:
        losses = [record.nats / record.target_tokens for record in records if _counts(record)]
        end = losses[-math.ceil(len(losses) / 10) :]
        if len(end) >= 2:
            variances.append(float(np.var(end)))
    return math.sqrt(math.fsum(variances) / len(variances)) if variances else None


def _pooled(seeds: Curves) -> tuple[list[int], Floats, Floats]:
    """Add nats [T] and tokens [T] over the seeds at the steps where all of them have a finite loss."""
    by_step = [{record.step: record for record in records if _counts(record)} for records in seeds]
    steps = sorted(set.intersection(*(set(records) for records in by_step))) if by_step else []
    nats = np.array([sum(records[step].nats for records in by_step) for step in steps], dtype=np.float64)
    tokens = np.array([sum(records[step].target_tokens for records in by_step) for step in steps], dtype=np.float64)
    return steps, nats, tokens


def _counts(record: StepRecord) -> bool:
    return record.target_tokens > 0 and math.isfinite(record.nats)


def _moving_sum(values: Floats, window: int) -> Floats:
    """Sum each value with the ``window - 1`` before it, where there are as many."""
    return np.convolve(values, np.ones(window), mode="valid")

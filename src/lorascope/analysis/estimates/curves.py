"""Training curve: the step at which it settles, and the spread of its end.

Shapes: T steps that every seed has.
"""

import math
from collections.abc import Sequence
from functools import reduce

import numpy as np

from lorascope.store.columns import Floats, Ints, StepColumns

Curves = Sequence[StepColumns]
"""The steps of each seed."""


def stable_step(seeds: Curves, level: float, zone: float) -> int | None:
    """Find the step from which the averaged training loss stays within ``zone * level`` of ``level`` to the end.

    The average at a step is the loss over the tokens of the last twentieth of all steps up to it, all seeds together.
    None where the last average lies outside, or there are no steps.
    """
    steps_T, nats_T, tokens_T = _pooled(seeds)
    if not len(steps_T):
        return None
    window = math.ceil(len(steps_T) / 20)
    averages = _moving_sum(nats_T, window) / _moving_sum(tokens_T, window)
    outside = np.flatnonzero(np.abs(averages - level) > zone * level)
    first = int(outside[-1]) + 1 if len(outside) else 0
    return int(steps_T[window - 1 + first]) if first < len(averages) else None


def final_spread(seeds: Curves) -> float | None:
    """Take the standard deviation of the losses of the last tenth of steps, root mean square over the seeds.

    None where no seed has two steps in it.
    """
    variances = []
    for steps in seeds:
        losses = steps.with_loss.losses
        end = losses[-math.ceil(len(losses) / 10) :]
        if len(end) >= 2:
            variances.append(float(np.var(end)))
    return math.sqrt(math.fsum(variances) / len(variances)) if variances else None


def _pooled(seeds: Curves) -> tuple[Ints, Floats, Floats]:
    """Add nats [T] and tokens [T] over the seeds at the steps where all of them have a finite loss."""
    counted = [steps.with_loss for steps in seeds]
    if not counted:
        return np.array([], dtype=np.int64), np.array([]), np.array([])
    steps_T, shared = counted[0].step, counted
    if not all(np.array_equal(steps.step, steps_T) for steps in counted):
        steps_T = reduce(np.intersect1d, (steps.step for steps in counted))
        shared = [steps.where(np.isin(steps.step, steps_T)) for steps in counted]
    nats_T = np.asarray(np.sum([steps.nats for steps in shared], axis=0))
    tokens_T = np.asarray(np.sum([steps.target_tokens for steps in shared], axis=0, dtype=np.float64))
    return steps_T, nats_T, tokens_T


def _moving_sum(values: Floats, window: int) -> Floats:
    """Sum each value with the ``window - 1`` before it, where there are as many."""
    sums = np.concatenate(([0.0], np.cumsum(values)))
    return np.asarray(sums[window:] - sums[:-window])

"""Losses of records: a sum of nats divided by a count of target tokens."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lorascope.store.columns import StepColumns

Floats = NDArray[np.float64]


class Estimate(NamedTuple):
    """A number and its 95% interval."""

    value: float
    low: float
    high: float


def final_train_loss(steps: StepColumns, steps_per_epoch: int | None) -> float | None:
    """Mean training loss over the tokens of the last steps, see ``final_window``; non-finite steps are left out."""
    finite = steps.finite
    window = final_window(len(finite), steps_per_epoch)
    tokens = int(finite.target_tokens[-window:].sum())
    return math.fsum(finite.nats[-window:].tolist()) / tokens if tokens > 0 else None


def final_window(steps: int, steps_per_epoch: int | None) -> int:
    """Count the steps the final training loss is taken over: the last epoch of two or more, else the last tenth."""
    if steps_per_epoch and steps >= 2 * steps_per_epoch:
        return steps_per_epoch
    return max(1, math.ceil(steps / 10))

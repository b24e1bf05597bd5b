"""Row order: which rows each step takes, as pure functions, so that a resumed run needs no saved state.

Steps are counted as in Transformers' Trainer: an epoch's last batch may be smaller, and so may its last optimizer step.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from lorascope.spec.schema import StudySpec


def shuffled(n: int, *, seed: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return a random permutation of 0 ... n-1, [n]; ``seed`` may have several parts.

    Sorts the raw output of PCG64, the only stream that NumPy guarantees never to change.
    """
    keys = np.random.PCG64(list(seed)).random_raw(n)
    return np.argsort(keys, kind="stable").astype(np.int64)


@lru_cache(maxsize=16)
def epoch_order(n: int, *, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Return the order of n training rows in one epoch (counted from 0), [n]."""
    return shuffled(n, seed=(seed, epoch))


def _rows_per_step(spec: StudySpec) -> int:
    return spec.per_device_train_batch_size * spec.gradient_accumulation_steps


def _steps_per_epoch(spec: StudySpec, n_train: int) -> int:
    return math.ceil(n_train / _rows_per_step(spec))


def total_steps(spec: StudySpec, n_train: int) -> int:
    """Count the optimizer steps of a run over ``n_train`` rows."""
    if spec.max_steps is not None:
        return spec.max_steps
    return math.ceil(spec.num_train_epochs * _steps_per_epoch(spec, n_train))


def step_rows(spec: StudySpec, n_train: int, *, seed: int, step: int) -> tuple[int, ...]:
    """Return the rows of optimizer step ``step`` (counted from 0), over all accumulated batches."""
    epoch, step_in_epoch = divmod(step, _steps_per_epoch(spec, n_train))
    first = step_in_epoch * _rows_per_step(spec)
    order = epoch_order(n_train, seed=seed, epoch=epoch)
    return tuple(order[first : first + _rows_per_step(spec)].tolist())


def step_tokens(spec: StudySpec, n_tokens: npt.NDArray[np.integer], *, seed: int, steps: int) -> list[int]:
    """Return the tokens of each of a seed's first optimizer steps; ``n_tokens`` [n] are those of the training rows."""
    rows = (list(step_rows(spec, len(n_tokens), seed=seed, step=step)) for step in range(steps))
    return [int(n_tokens[row].sum()) for row in rows]

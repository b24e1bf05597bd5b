"""Losses and their intervals. A loss is a sum of nats divided by a count of target tokens, here and nowhere else.

Shapes: N held-out rows with target tokens, K ranks, B bootstrap resamples.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lorascope.records import EvalRecord, StepRecord

RESAMPLES = 10_000
SEED = 20_240_229
CHUNK_VALUES = 2_000_000
"""Row numbers drawn at once; bounds the memory of a bootstrap."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A number and its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RowLosses:
    """Held-out nats and target tokens of one rank, row by row, nats meaned over seeds."""

    nats: Floats
    """[N]"""
    target_tokens: Floats
    """[N]"""

    @property
    def loss(self) -> float:
        """Nats a token."""
        return math.fsum(self.nats) / float(self.target_tokens.sum())


def evaluation_loss(record: EvalRecord) -> float | None:
    """Divide an evaluation's nats by its tokens; None where that is not finite."""
    return _ratio(record.example_nats, sum(record.example_target_tokens))


def last_finite(records: Sequence[EvalRecord]) -> EvalRecord | None:
    """Find the last evaluation after training began that has a finite loss."""
    trained = [record for record in records if record.step > 0 and evaluation_loss(record) is not None]
    return trained[-1] if trained else None


def final_train_loss(steps: Sequence[StepRecord], steps_per_epoch: int | None) -> float | None:
    """Mean training loss over the tokens of the last steps, see ``final_window``; non-finite steps are left out."""
    finite = [record for record in steps if math.isfinite(record.nats)]
    window = finite[-final_window(len(finite), steps_per_epoch) :]
    return _ratio([record.nats for record in window], sum(record.target_tokens for record in window))


def final_window(steps: int, steps_per_epoch: int | None) -> int:
    """Count the steps the final training loss is taken over: the last epoch of two or more, else the last tenth."""
    if steps_per_epoch and steps >= 2 * steps_per_epoch:
        return steps_per_epoch
    return max(1, math.ceil(steps / 10))


def row_losses(records: Sequence[EvalRecord]) -> RowLosses:
    """Mean the seeds' evaluations row by row; rows without target tokens carry no loss and are left out."""
    tokens = np.array(records[0].example_target_tokens, dtype=np.float64)
    assert all(record.example_target_tokens == records[0].example_target_tokens for record in records)
    nats: Floats = np.array([record.example_nats for record in records], dtype=np.float64).mean(axis=0)
    return RowLosses(nats=nats[tokens > 0], target_tokens=tokens[tokens > 0])


def resampled_losses(ranks: Sequence[RowLosses]) -> Floats:
    """Bootstrap the ratio of nats to tokens, the same drawn rows for every rank, so that differences are paired.

    Returns [B, K]. Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 8 and 13.
    """
    n_rows = len(ranks[0].nats)
    assert all(np.array_equal(rows.target_tokens, ranks[0].target_tokens) for rows in ranks)
    generator = np.random.default_rng(SEED)
    chunk = max(1, CHUNK_VALUES // n_rows)
    losses_BK = np.empty((RESAMPLES, len(ranks)))
    for start in range(0, RESAMPLES, chunk):
        stop = min(start + chunk, RESAMPLES)
        drawn_BN = generator.integers(n_rows, size=(stop - start, n_rows))
        tokens_B = ranks[0].target_tokens[drawn_BN].sum(axis=1)
        for column, rows in enumerate(ranks):
            losses_BK[start:stop, column] = rows.nats[drawn_BN].sum(axis=1) / tokens_B
    return losses_BK


def interval(values: Floats) -> tuple[float, float]:
    """Take the middle 95% of the resampled values [B]."""
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def _ratio(nats: Sequence[float], tokens: int) -> float | None:
    return math.fsum(nats) / tokens if tokens > 0 and all(map(math.isfinite, nats)) else None

"""Shares of held-out rows, such as those that are solved, and their differences: values of 0 or 1 a row.

A variance that is taken from a few ones and zeros is too small, and none at all where no row differs. So rows
that were not observed are added: to a rank two solved and two failed ones (Agresti and Coull, The American Statistician
52, 1998); to a pair of ranks half a row that only the first solves, and half of one that only the second does (Agresti
and Min, Statistics in Medicine 24, 2005). The variance of seeds is that of losses (``paired``).

Shapes: K ranks, S seeds, N held-out rows.
"""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from lorascope.analysis.estimates.losses import Floats
from lorascope.analysis.estimates.paired import SeedRows, Uncertain, joined, losses, parts_of

_OF_A_RANK = (1.0, 1.0, 0.0, 0.0)
_HALF = 0.5
_OF_A_PAIR = ((math.sqrt(_HALF), 0.0), (0.0, math.sqrt(_HALF)))
"""Values of two rows that count as half of one each: their squares, of which a variance is made, are a half."""


def is_binary(ranks: Sequence[SeedRows]) -> bool:
    """Return True if each row counts once and has 0 or 1."""
    return all(bool(np.isin(rank.nats, (0.0, 1.0)).all() and (rank.target_tokens == 1).all()) for rank in ranks)


def share_levels(ranks: Sequence[SeedRows]) -> list[Uncertain]:
    """Estimate the share of each rank, [K]; the middle of an interval lies nearer to one half than the share itself."""
    return losses([_with_rows(rank, _OF_A_RANK, weight=1.0) for rank in ranks])


def share_differences(ranks: Sequence[SeedRows]) -> dict[tuple[int, int], Uncertain]:
    """Estimate the difference of each pair of places i < j; the middle of an interval lies nearer to 0 than it does."""
    pairs = list(combinations(range(len(ranks)), 2))
    sides = [
        tuple(_with_rows(ranks[place], values, weight=_HALF) for place, values in zip(pair, _OF_A_PAIR, strict=True))
        for pair in pairs
    ]
    freedom = (len(ranks) - 1) * (len(ranks[0].losses) - 1)
    parts = [
        parts_of(first.losses - second.losses, first.influences() - second.influences()) for first, second in sides
    ]
    return {
        pair: joined(first.loss - second.loss, own, parts, freedom, first)
        for pair, (first, second), own in zip(pairs, sides, parts, strict=True)
    }


def _with_rows(rank: SeedRows, values: Sequence[float], *, weight: float) -> SeedRows:
    more: Floats = np.tile(np.asarray(values), (len(rank.nats), 1))
    return SeedRows(
        nats=np.concatenate([rank.nats, more], axis=1),
        target_tokens=np.concatenate([rank.target_tokens, np.full(len(values), weight)]),
    )

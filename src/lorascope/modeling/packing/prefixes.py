"""Prefix groups: rows of a batch that begin with the same tokens.

Under causal attention such tokens have the same hidden states in every row, so a micro-batch computes them once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

_LEAST = 16
"""Tokens of the shortest prefix that is worth a span of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefixGroup:
    """Rows that begin with the same tokens."""

    rows: tuple[int, ...] = field(hash=False)
    """Indices in the batch, ascending, two at least; not hashed, as it is long in a large batch."""
    shared: int
    """Tokens at the beginning that are the same in all of them; every row has at least one token more."""


def find_prefix_groups(rows: Sequence[npt.NDArray[np.int64]]) -> tuple[PrefixGroup, ...]:
    """Choose the prefix groups that save most tokens: all but one row's prefix in each.

    A row belongs to one group at most, and a group's rows are neighbours when the batch is sorted by tokens. The result
    depends on the rows of the batch alone.

    Args:
        rows: int64 [L] token ids of each row.
    """
    # big-endian bytes are in the order of the numbers
    order = sorted(range(len(rows)), key=lambda row: (rows[row].astype(">i8").tobytes(), row))
    common = np.array([_common(rows[a], rows[b]) for a, b in pairwise(order)], dtype=np.int64)
    return tuple(
        PrefixGroup(rows=tuple(sorted(order[first:stop])), shared=int(common[first : stop - 1].min()))
        for first, stop in _cut(common, len(rows))
        if stop - first > 1
    )


def _common(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> int:
    """Count the first tokens that two rows share, without the last token of either."""
    n = min(len(a), len(b)) - 1
    differs = np.flatnonzero(a[:n] != b[:n])
    return int(differs[0]) if len(differs) else n


def _cut(common: npt.NDArray[np.int64], n: int) -> list[tuple[int, int]]:
    """Split n sorted rows into runs that save most tokens: ``(first, stop)`` of each, single rows included.

    ``common[i]`` tokens are shared by row i and the row after it.
    """
    saved, begins = np.zeros(n + 1, dtype=np.int64), np.zeros(n + 1, dtype=np.int64)
    for stop in range(1, n + 1):
        # element m is about a last run of m + 1 rows, before which the best cut is known
        shared = np.minimum.accumulate(common[: stop - 1][::-1])
        gains = np.where(shared >= _LEAST, shared, 0) * np.arange(1, stop)
        totals = saved[:stop][::-1] + np.concatenate(([0], gains))
        best = int(totals.argmax())
        saved[stop], begins[stop] = totals[best], stop - 1 - best
    runs, stop = [], n
    while stop > 0:
        runs.append((int(begins[stop]), stop))
        stop = runs[-1][0]
    return runs[::-1]

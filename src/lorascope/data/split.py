"""Hold-out split: rows chosen by seed, with no copy of a prompt on both sides."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lorascope.data.row_order import shuffled

LARGEST_DEFAULT = 256
LARGEST_POOL = 1024
LARGEST_IN_BUDGET = 64
"""Rows that training is evaluated on where time is short; looks add further ones."""
Rows = npt.NDArray[np.int64]
"""Row numbers, ascending."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HoldOut:
    """Training and held-out rows, and the repeats among them."""

    train: Rows
    eval: Rows
    train_repeats: int
    """Rows in ``train`` that repeat an earlier row exactly."""
    eval_repeats: int
    """Held-out rows dropped because they repeat another exactly: counted twice, they would feign precision."""


def default_eval_rows(n_rows: int, *, hurried: bool = False) -> int:
    """Return how many rows to hold out: a tenth, at least two, at most 256, or 64 in a hurry."""
    return min(LARGEST_IN_BUDGET if hurried else LARGEST_DEFAULT, max(2, n_rows // 10))


def pool_rows(n_rows: int, n_eval: int) -> int:
    """Return how many rows a sequential study may evaluate: a fifth, at most 1,024, at least ``n_eval``."""
    return max(n_eval, min(LARGEST_POOL, n_rows // 5))


def hold_out(groups: Rows, is_first: npt.NDArray[np.bool_], *, n_eval: int, seed: int) -> HoldOut:
    """Hold out at most ``n_eval`` different rows, all rows of a group together.

    Groups are visited in seeded order, and one with more rows than are still needed is skipped. Fewer rows than asked
    for are held out only if no remaining group fits.

    Args:
        groups: each row's group, [rows], numbered from 0.
        is_first: True for each row that repeats no earlier one, [rows].
        n_eval: rows to hold out.
        seed: decides which.
    """
    different = np.bincount(groups, weights=is_first).astype(np.int64)
    held_groups = np.zeros(len(different), dtype=bool)
    wanted = n_eval
    for group in shuffled(len(different), seed=(seed,)).tolist():
        if different[group] <= wanted:
            held_groups[group] = True
            wanted -= int(different[group])
            if not wanted:
                break
    held = held_groups[groups]
    return HoldOut(
        train=np.flatnonzero(~held),
        eval=np.flatnonzero(held & is_first),
        train_repeats=int(np.count_nonzero(~held & ~is_first)),
        eval_repeats=int(np.count_nonzero(held & ~is_first)),
    )


def choose_rows(n_rows: int, *, n_chosen: int, seed: int) -> Rows:
    """Choose ``n_chosen`` of ``n_rows`` rows by seed, in the order of the rows."""
    return np.sort(shuffled(n_rows, seed=(seed,))[:n_chosen])

"""Hold-out split: rows chosen by seed, with no prompt on both sides."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from lorascope.data.row_order import shuffled

LARGEST_DEFAULT = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class HoldOut:
    """Row numbers of training and held-out rows, in order, and the repeats among them."""

    train: tuple[int, ...]
    eval: tuple[int, ...]
    train_repeats: int
    """Rows in ``train`` that repeat an earlier row exactly."""
    eval_repeats: int
    """Held-out rows dropped because they repeat another exactly: counted twice, they would feign precision."""


def default_eval_rows(n_rows: int) -> int:
    """Return how many rows to hold out: a tenth, at least two, at most 256."""
    return min(LARGEST_DEFAULT, max(2, n_rows // 10))


def first_occurrences(rows: Sequence[tuple[str, str]]) -> tuple[bool, ...]:
    """Return True for each (prompt, text) that repeats no earlier one."""
    seen: set[tuple[str, str]] = set()
    marks = []
    for row in rows:
        marks.append(row not in seen)
        seen.add(row)
    return tuple(marks)


def hold_out(rows: Sequence[tuple[str, str]], *, n_eval: int, seed: int) -> HoldOut:
    """Hold out at most ``n_eval`` different rows of (prompt, text), all rows of a prompt together.

    Prompts are visited in seeded order, and one with more rows than are still needed is skipped. Fewer rows than asked
    for are held out only if no remaining prompt fits.
    """
    is_first = first_occurrences(rows)
    by_prompt: defaultdict[str, list[int]] = defaultdict(list)
    for row, (prompt, _) in enumerate(rows):
        by_prompt[prompt].append(row)
    groups = list(by_prompt.values())
    held: set[int] = set()
    wanted = n_eval
    for group in shuffled(len(groups), seed=(seed,)):
        different = sum(is_first[row] for row in groups[group])
        if different <= wanted:
            held.update(groups[group])
            wanted -= different
    train = tuple(row for row in range(len(rows)) if row not in held)
    evaluation = tuple(row for row in sorted(held) if is_first[row])
    return HoldOut(
        train=train,
        eval=evaluation,
        train_repeats=sum(not is_first[row] for row in train),
        eval_repeats=len(held) - len(evaluation),
    )


def choose_rows(n_rows: int, *, n_chosen: int, seed: int) -> tuple[int, ...]:
    """Choose ``n_chosen`` of ``n_rows`` rows by seed, in the order of the rows."""
    return tuple(sorted(shuffled(n_rows, seed=(seed,))[:n_chosen].tolist()))

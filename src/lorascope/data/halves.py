"""Training and held-out rows of a study, without copies between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from lorascope.data.dataset import Examples
from lorascope.data.encoded import CUT, EncodedRows
from lorascope.data.formats.rendering import Drop
from lorascope.data.minhash import SIMILAR, similar_rows
from lorascope.data.row_keys import (
    CONVERSATION,
    EXACT,
    PROMPT,
    TOKENS,
    Key,
    count_different,
    first_of_each,
    group_rows,
)
from lorascope.data.row_order import shuffled
from lorascope.data.split import (
    LARGEST_DEFAULT,
    LARGEST_POOL,
    HoldOut,
    choose_rows,
    default_eval_rows,
    hold_out,
    pool_rows,
)
from lorascope.errors import InputError
from lorascope.message import Message, Value
from lorascope.spec.schema import StudySpec

Groups = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Halves:
    """Both halves, and notes about them."""

    train: Examples
    held: Examples
    n_eval: int
    """Held-out rows on which training is evaluated."""
    key: int
    """The key that no row of one half shares with a row of the other."""
    notes: tuple[Message, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Copies:
    """Groups of rows that are copies of one another."""

    keys: npt.NDArray[np.uint64]
    similar: Sequence[Key]
    """The key of similar rows, where the study looks for them."""

    @classmethod
    def of(cls, keys: npt.NDArray[np.uint64], signatures: npt.NDArray[np.uint32]) -> Self:
        return cls(keys=keys, similar=[similar_rows(signatures)] if signatures.size else [])

    def groups(self, key: int) -> Groups:
        """Number the groups by the prompt, or by the whole conversation."""
        return group_rows(self.keys[:, key], self.keys[:, TOKENS], *self.similar)

    def notes(self) -> tuple[Message, ...]:
        """Count prompts that another one's group took in."""
        alone = group_rows(self.keys[:, PROMPT], self.keys[:, TOKENS])
        count = int(alone.max()) + 1
        notes = note(count_different(self.keys[:, EXACT]) - count, "rows.near_copies")
        if self.similar:
            notes += note(count - int(self.groups(PROMPT).max()) - 1, "rows.similar", share=SIMILAR)
        return notes


def split_by_seed(spec: StudySpec, rows: EncodedRows, n_further: int = 0) -> Halves:
    """Hold out rows of the study's one split.

    Args:
        spec: the study.
        rows: of its split.
        n_further: rows outside of the split that a sequential study can be evaluated on.

    Raises:
        InputError: no rows can be held out, or too few rows are left.
    """
    evaluated = n_eval = spec.eval_examples or default_eval_rows(len(rows), hurried=_hurried(spec))
    if spec.until_decided:
        n_eval = max(evaluated, pool_rows(len(rows), evaluated) - n_further)
    copies, is_first = _Copies.of(rows.keys, rows.signatures), first_of_each(rows.keys[:, TOKENS])

    def split_by(key: int) -> HoldOut:
        return hold_out(copies.groups(key), is_first, n_eval=n_eval, seed=spec.split_seed)

    split, key, notes = split_by(PROMPT), PROMPT, copies.notes()
    if len(split.eval) < 2 and len((whole := split_by(CONVERSATION)).eval) >= 2:
        split, key, notes = whole, CONVERSATION, (Message("rows.whole_conversations"),)
    if not len(split.eval):
        raise InputError(
            f"no rows can be held out: every prompt has more than {n_eval} rows, and no prompt may be in both halves",
            remedy="raise eval_examples, name an eval_split, or use the format 'text' where rows have no prompts",
        )
    _check_sizes(spec, rows, n_train=len(split.train), n_held=len(split.eval), fewest_held=2)
    if len(split.eval) < n_eval:
        notes += (Message("rows.fewer_held_out", asked=n_eval, count=len(split.eval)),)
    notes += note(split.train_repeats, "rows.train_repeats") + note(split.eval_repeats, "rows.eval_repeats")
    examples = Examples.of_columns(rows.tokens, rows.lengths)
    return Halves(
        train=examples.take(split.train), held=examples.take(split.eval), n_eval=evaluated, key=key, notes=notes
    )


def _check_sizes(spec: StudySpec, rows: EncodedRows, *, n_train: int, n_held: int, fewest_held: int) -> None:
    batch = spec.per_device_train_batch_size
    if n_train >= batch and n_held >= fewest_held:
        return
    why = {CUT: "whose completion begins behind max_length", **{drop.value: drop.because for drop in Drop}}
    found = [f"{rows.counts[code]} {because}" for code, because in why.items() if rows.counts[code]]
    if spec.eval_split is not None and len(rows) > n_train:
        found.append(f"{len(rows) - n_train} with the prompt of a held-out row")
    raise InputError(
        f"too few usable rows: {n_train} to train on (a batch takes {batch}) and {n_held} to hold out (at least "
        f"{fewest_held})" + (f"; not usable: {', '.join(found)}" if found else ""),
        remedy="give more rows, lower eval_examples or per_device_train_batch_size, or name another eval_split",
    )


def split_by_name(spec: StudySpec, rows: EncodedRows, other: EncodedRows) -> Halves:
    """Hold out rows of the split that the study names, and train on those that are no copies of them.

    Raises:
        InputError: there are fewer than the study asks for, or too few are left.
    """
    different = np.flatnonzero(first_of_each(other.keys[:, TOKENS]))
    n_eval = spec.eval_examples or len(different)
    evaluated = n_eval
    if spec.until_decided:
        n_eval = min(len(different), max(n_eval, LARGEST_POOL))
        evaluated = spec.eval_examples or default_eval_rows(5 * n_eval, hurried=_hurried(spec))
    held = different[choose_rows(len(different), n_chosen=n_eval, seed=spec.split_seed)]
    copies = _Copies.of(
        np.concatenate([rows.keys, other.keys[held]]), np.concatenate([rows.signatures, other.signatures[held]])
    )

    def kept_by(key: int) -> Groups:
        groups = copies.groups(key)
        return np.flatnonzero(~np.isin(groups[: len(rows)], groups[len(rows) :]))

    kept, key, notes = kept_by(PROMPT), PROMPT, copies.notes()
    if len(kept) < spec.per_device_train_batch_size <= len(whole := kept_by(CONVERSATION)):
        kept, key, notes = whole, CONVERSATION, (Message("rows.whole_conversations"),)
    _check_sizes(spec, rows, n_train=len(kept), n_held=len(held), fewest_held=spec.eval_examples or 2)
    repeats = len(kept) - int(first_of_each(rows.keys[kept, TOKENS]).sum())
    notes += note(len(rows) - len(kept), "rows.shared_prompt")
    notes += note(repeats, "rows.train_repeats") + note(len(other) - len(different), "rows.eval_repeats")
    return Halves(
        train=Examples.of_columns(rows.tokens, rows.lengths).take(kept),
        held=Examples.of_columns(other.tokens, other.lengths).take(held),
        n_eval=evaluated,
        key=key,
        notes=notes,
    )


def held_out_alone(spec: StudySpec, rows: EncodedRows) -> tuple[Examples, tuple[Message, ...]]:
    """Choose rows where nothing is trained: different ones, at most ``eval_examples``, by default 256.

    Raises:
        InputError: there are fewer than two, or than the study asks for.
    """
    different = np.flatnonzero(first_of_each(rows.keys[:, TOKENS]))
    fewest = spec.eval_examples or 2
    if len(different) < fewest:
        raise InputError(
            f"too few held-out rows: {len(different)} different ones, and at least {fewest} are needed",
            remedy="give more rows" + (", or lower eval_examples" if spec.eval_examples else ""),
        )
    held = different[choose_rows(len(different), n_chosen=spec.eval_examples or LARGEST_DEFAULT, seed=spec.split_seed)]
    examples = Examples.of_columns(rows.tokens, rows.lengths).take(held)
    return examples, note(len(rows) - len(different), "rows.eval_repeats")


def rows_outside(rows: EncodedRows, others: EncodedRows, key: int) -> Groups:
    """Return the numbers of the other rows that copy none of ``rows`` and repeat no earlier one of their own."""
    if not len(others):
        return np.empty(0, np.int64)
    copies = _Copies.of(np.concatenate([rows.keys, others.keys]), np.concatenate([rows.signatures, others.signatures]))
    groups, is_first = copies.groups(key), first_of_each(others.keys[:, TOKENS])
    return np.flatnonzero(is_first & ~np.isin(groups[len(rows) :], groups[: len(rows)]))


def evaluated_first(spec: StudySpec, halves: Halves) -> tuple[Examples, Examples]:
    """Divide the rows that are held out: those that training is evaluated on, and those that a sequential study has
    beyond them, in the order in which it evaluates them.
    """
    held = halves.held
    if not spec.until_decided:
        return held, held[:0]
    order = shuffled(len(held), seed=(spec.split_seed,))
    return held.take(np.sort(order[: halves.n_eval])), held.take(order[halves.n_eval :])


def _hurried(spec: StudySpec) -> bool:
    """Return True for a study that evaluates few rows in training, and further ones where they are worth their time."""
    return spec.until_decided and spec.time_budget is not None


def note(count: int, code: str, **values: Value) -> tuple[Message, ...]:
    """Return a note with this count, none for 0."""
    return (Message(code, count=count, **values),) if count else ()

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
from lorascope.data.split import HoldOut, choose_rows, default_eval_rows, hold_out
from lorascope.errors import InputError
from lorascope.message import Message, Value
from lorascope.spec.schema import StudySpec

Groups = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Halves:
    """Both halves, and what is to be said of them."""

    train: Examples
    held: Examples
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


def split_by_seed(spec: StudySpec, rows: EncodedRows) -> Halves:
    """Hold out rows of the study's one split. Raises InputError if that cannot be done."""
    n_rows = len(rows)
    n_eval = spec.eval_examples or default_eval_rows(n_rows)
    if n_rows < n_eval + spec.per_device_train_batch_size:
        raise InputError(
            f"{n_rows} usable rows are too few for {n_eval} held-out rows and one batch of "
            f"{spec.per_device_train_batch_size}{_unused(rows)}",
            remedy="give more rows, or lower eval_examples or per_device_train_batch_size",
        )
    copies, is_first = _Copies.of(rows.keys, rows.signatures), first_of_each(rows.keys[:, TOKENS])

    def split_by(key: int) -> HoldOut:
        return hold_out(copies.groups(key), is_first, n_eval=n_eval, seed=spec.split_seed)

    split, notes = split_by(PROMPT), copies.notes()
    if len(split.eval) < 2 and len((whole := split_by(CONVERSATION)).eval) >= 2:
        split, notes = whole, (Message("rows.whole_conversations"),)
    if not len(split.eval):
        raise InputError(
            f"no rows can be held out: every prompt has more than {n_eval} rows, and no prompt may be in both halves",
            remedy="raise eval_examples, name an eval_split, or use the format 'text' where rows have no prompts",
        )
    if len(split.eval) < n_eval:
        notes += (Message("rows.fewer_held_out", asked=n_eval, count=len(split.eval)),)
    notes += note(split.train_repeats, "rows.train_repeats") + note(split.eval_repeats, "rows.eval_repeats")
    examples = Examples.of_columns(rows.tokens, rows.lengths)
    return Halves(train=examples.take(split.train), held=examples.take(split.eval), notes=notes)


def _unused(rows: EncodedRows) -> str:
    """Return why further rows are not usable, as the end of a problem; empty if all are."""
    why = {CUT: "whose completion begins behind max_length", **{drop.value: drop.because for drop in Drop}}
    found = [f"{rows.counts[code]} {because}" for code, because in why.items() if rows.counts[code]]
    return f"; not usable: {', '.join(found)}" if found else ""


def split_by_name(spec: StudySpec, rows: EncodedRows, other: EncodedRows) -> Halves:
    """Hold out rows of the split that the study names, and train on those that are no copies of them.

    Raises:
        InputError: there are fewer than the study asks for.
    """
    different = np.flatnonzero(first_of_each(other.keys[:, TOKENS]))
    n_eval = spec.eval_examples or len(different)
    if len(different) < n_eval:
        raise InputError(
            f"eval_split {spec.eval_split!r} has {len(different)} different usable rows, fewer than "
            f"eval_examples {n_eval}",
            remedy="lower eval_examples or leave it out",
        )
    held = different[choose_rows(len(different), n_chosen=n_eval, seed=spec.split_seed)]
    copies = _Copies.of(
        np.concatenate([rows.keys, other.keys[held]]), np.concatenate([rows.signatures, other.signatures[held]])
    )

    def kept_by(key: int) -> Groups:
        groups = copies.groups(key)
        return np.flatnonzero(~np.isin(groups[: len(rows)], groups[len(rows) :]))

    kept, notes = kept_by(PROMPT), copies.notes()
    if len(kept) < spec.per_device_train_batch_size <= len(whole := kept_by(CONVERSATION)):
        kept, notes = whole, (Message("rows.whole_conversations"),)
    repeats = len(kept) - int(first_of_each(rows.keys[kept, TOKENS]).sum())
    notes += note(len(rows) - len(kept), "rows.shared_prompt")
    notes += note(repeats, "rows.train_repeats") + note(len(other) - len(different), "rows.eval_repeats")
    return Halves(
        train=Examples.of_columns(rows.tokens, rows.lengths).take(kept),
        held=Examples.of_columns(other.tokens, other.lengths).take(held),
        notes=notes,
    )


def note(count: int, code: str, **values: Value) -> tuple[Message, ...]:
    """Return the note of a count, nothing for none."""
    return (Message(code, count=count, **values),) if count else ()

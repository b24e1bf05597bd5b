"""Data preparation: load, render, tokenise and split the rows of a study."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from lorascope.data.dataset import Examples, Splits, hash_splits
from lorascope.data.encoded import CUT, RENDERED, TRUNCATED, EncodedRows, Encoder, join_encoded
from lorascope.data.formats.detect import Format
from lorascope.data.formats.rendering import Drop, Remark
from lorascope.data.processes import Progress, encode_rows
from lorascope.data.row_keys import CONVERSATION, EXACT, PROMPT, TOKENS, count_different, first_of_each, group_rows
from lorascope.data.sources.mixture import load_data_sets
from lorascope.data.sources.rows import Rows
from lorascope.data.split import HoldOut, choose_rows, default_eval_rows, hold_out
from lorascope.errors import InputError
from lorascope.message import Message, Value
from lorascope.spec.schema import StudySpec


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Read:
    rows: EncodedRows
    notes: tuple[Message, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Halves:
    train: Examples
    held: Examples
    notes: tuple[Message, ...]


def prepare(
    spec: StudySpec,
    tokenizer: PreTrainedTokenizerBase,
    *,
    processes: int = 1,
    tell: Progress | None = None,
) -> Splits:
    """Load, render, tokenise and split the rows of a study.

    Args:
        spec: the study.
        tokenizer: of its model.
        processes: how many may tokenise at once.
        tell: told how many of how many rows are tokenised, where that takes long.

    Raises:
        InputError: the tokenizer has no end token, or the rows cannot be used.
    """
    _check(spec, tokenizer)
    data_sets = load_data_sets(spec, spec.split, mixed=True)
    encoders = [_encoder(spec, tokenizer, rows) for rows in data_sets]

    def read(data_sets: Sequence[Rows], split: str) -> _Read:
        parts = [
            _read(encoder, rows, split, processes=processes, tell=tell)
            for encoder, rows in zip(encoders, data_sets, strict=True)
        ]
        return _Read(
            rows=parts[0].rows if len(parts) == 1 else join_encoded(part.rows for part in parts),
            notes=tuple(note for part in parts for note in part.notes),
        )

    found = read(data_sets, spec.split)
    if spec.eval_split is None:
        notes, halves = found.notes, _split_by_seed(spec, found.rows)
    else:
        other = read(load_data_sets(spec, spec.eval_split, mixed=False), spec.eval_split)
        notes = tuple(dict.fromkeys(found.notes + other.notes))
        halves = _split_by_name(spec, found.rows, other.rows)
    train, held = halves.train, tuple(halves.held)
    _check_sizes(spec, len(train), len(held))
    formats = ", ".join(dict.fromkeys(encoder.format.name for encoder in encoders))
    data_hash = hash_splits((train, held))
    return Splits(train=train, eval=held, data_hash=data_hash, format=formats, notes=notes + halves.notes)


def _encoder(spec: StudySpec, tokenizer: PreTrainedTokenizerBase, rows: Rows) -> Encoder:
    encoder = Encoder(spec=spec, tokenizer=tokenizer, columns=rows.columns, sample=rows.sample())
    try:
        _ = encoder.format
    except InputError as error:
        if len(spec.dataset_names) == 1:
            raise
        raise InputError(f"data set {rows.name!r}: {error.problem}", remedy=error.remedy) from error
    return encoder


def _read(encoder: Encoder, rows: Rows, split: str, *, processes: int, tell: Progress | None) -> _Read:
    spec, chosen = encoder.spec, encoder.format
    label = split if len(spec.dataset_names) == 1 else f"{rows.name} ({split})"
    missing = [column for column in chosen.columns if column not in rows.columns]
    if missing:
        raise InputError(
            f"split {label!r} has no column {missing[0]!r}", remedy=f"the columns are: {', '.join(rows.columns)}"
        )
    encoded = encode_rows(encoder, rows, processes=processes, tell=tell)
    _check_usable(spec, encoded, len(rows), chosen, label)
    return _Read(rows=encoded, notes=rows.notes + chosen.notes + _notes(spec, encoded, len(rows), label))


def _check(spec: StudySpec, tokenizer: PreTrainedTokenizerBase) -> None:
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"the tokenizer of {spec.model!r} has no end token",
            remedy="choose a model whose tokenizer sets eos_token, or set it in tokenizer_config.json",
        )
    if spec.eval_split is not None and spec.eval_split.strip() == spec.split.strip():
        raise InputError(
            f"eval_split {spec.eval_split!r} is the split that is trained on",
            remedy="name another split, or leave eval_split out to have rows held out by split_seed",
        )


def _check_sizes(spec: StudySpec, n_train: int, n_held: int) -> None:
    if n_held < 2:
        raise InputError(
            "1 row is held out, and an interval needs at least two",
            remedy="hold out more rows (eval_examples, eval_split), or give rows with more different prompts",
        )
    if n_train < spec.per_device_train_batch_size:
        raise InputError(
            f"{n_train} rows are left for training, fewer than one batch of {spec.per_device_train_batch_size}",
            remedy="give more rows, hold out fewer (eval_examples), or lower per_device_train_batch_size",
        )


def _check_usable(spec: StudySpec, encoded: EncodedRows, n_rows: int, chosen: Format, split: str) -> None:
    counts = encoded.counts
    if not counts[RENDERED]:
        why = ", ".join(f"{counts[drop.value]} {drop.because}" for drop in Drop if counts[drop.value])
        raise InputError(
            f"none of the {n_rows} rows of split {split!r} can be used: {why}",
            remedy=f"fill the columns that are read ({', '.join(chosen.columns)}), or choose another format",
        )
    if len(encoded):
        return
    if encoded.first_target is None:
        raise InputError(
            f"none of the {counts[RENDERED]} rows has a token to take the loss on",
            remedy="give rows with a completion, or messages with an assistant's turn",
        )
    raise InputError(
        f"max_length {spec.max_length} leaves no target in any of the {counts[RENDERED]} rows: all of them are longer "
        "before their completion begins",
        remedy=f"raise max_length; the shortest row's first target is token {encoded.first_target}",
    )


def _notes(spec: StudySpec, encoded: EncodedRows, n_rows: int, split: str) -> tuple[Message, ...]:
    counts = encoded.counts
    notes: list[Message] = []
    for code in (*Drop, *Remark, TRUNCATED, CUT):
        values: dict[str, Value] = {"split": split, "rows": n_rows}
        if code in {Drop.NO_TARGET, TRUNCATED, CUT}:
            values["rows"] = counts[RENDERED]
        if code in {TRUNCATED, CUT}:
            values["tokens"] = spec.max_length
        notes += _note(counts[code], str(code), **values)
    return tuple(notes)


def _split_by_seed(spec: StudySpec, rows: EncodedRows) -> _Halves:
    n_rows = len(rows)
    n_eval = spec.eval_examples or default_eval_rows(n_rows)
    if n_rows < n_eval + spec.per_device_train_batch_size:
        raise InputError(
            f"{n_rows} usable rows are too few for {n_eval} held-out rows and one batch of "
            f"{spec.per_device_train_batch_size}",
            remedy="give more rows, or lower eval_examples or per_device_train_batch_size",
        )
    is_first = first_of_each(rows.keys[:, TOKENS])

    def split_by(key: int) -> HoldOut:
        groups = group_rows(rows.keys[:, key], rows.keys[:, TOKENS])
        return hold_out(groups, is_first, n_eval=n_eval, seed=spec.split_seed)

    split = split_by(PROMPT)
    notes = _near_copies(rows)
    if len(split.eval) < 2 and len((whole := split_by(CONVERSATION)).eval) >= 2:
        split = whole
        notes = (Message("rows.whole_conversations"),)
    if not len(split.eval):
        raise InputError(
            f"no rows can be held out: every prompt has more than {n_eval} rows, and no prompt may be in both halves",
            remedy="raise eval_examples, name an eval_split, or use the format 'text' where rows have no prompts",
        )
    if len(split.eval) < n_eval:
        notes += (Message("rows.fewer_held_out", asked=n_eval, count=len(split.eval)),)
    notes += _note(split.train_repeats, "rows.train_repeats") + _note(split.eval_repeats, "rows.eval_repeats")
    examples = Examples.of_columns(rows.tokens, rows.lengths)
    return _Halves(train=examples.take(split.train), held=examples.take(split.eval), notes=notes)


def _split_by_name(spec: StudySpec, rows: EncodedRows, other: EncodedRows) -> _Halves:
    different = np.flatnonzero(first_of_each(other.keys[:, TOKENS]))
    n_eval = spec.eval_examples or len(different)
    if len(different) < n_eval:
        raise InputError(
            f"eval_split {spec.eval_split!r} has {len(different)} different usable rows, fewer than "
            f"eval_examples {n_eval}",
            remedy="lower eval_examples or leave it out",
        )
    held = different[choose_rows(len(different), n_chosen=n_eval, seed=spec.split_seed)]
    keys = np.concatenate([rows.keys, other.keys[held]])

    def kept_by(key: int) -> npt.NDArray[np.int64]:
        groups = group_rows(keys[:, key], keys[:, TOKENS])
        return np.flatnonzero(~np.isin(groups[: len(rows)], groups[len(rows) :]))

    notes: tuple[Message, ...] = ()
    kept = kept_by(PROMPT)
    if len(kept) < spec.per_device_train_batch_size <= len(whole := kept_by(CONVERSATION)):
        kept, notes = whole, (Message("rows.whole_conversations"),)
    repeats = len(kept) - int(first_of_each(rows.keys[kept, TOKENS]).sum())
    notes += _note(len(rows) - len(kept), "rows.shared_prompt")
    notes += _note(repeats, "rows.train_repeats") + _note(len(other) - len(different), "rows.eval_repeats")
    return _Halves(
        train=Examples.of_columns(rows.tokens, rows.lengths).take(kept),
        held=Examples.of_columns(other.tokens, other.lengths).take(held),
        notes=notes,
    )


def _near_copies(rows: EncodedRows) -> tuple[Message, ...]:
    groups = group_rows(rows.keys[:, PROMPT], rows.keys[:, TOKENS])
    return _note(count_different(rows.keys[:, EXACT]) - int(groups.max()) - 1, "rows.near_copies")


def _note(count: int, code: str, **values: Value) -> tuple[Message, ...]:
    return (Message(code, count=count, **values),) if count else ()

"""Data preparation: load, render, tokenise and split the rows of a study."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from transformers import PreTrainedTokenizerBase

from lorascope.data.dataset import Example, Splits, hash_splits
from lorascope.data.encode import encode
from lorascope.data.formats.detect import Format, choose_format
from lorascope.data.formats.rendering import Drop, Remark, RenderedRow
from lorascope.data.sources.load import load_rows
from lorascope.data.sources.rows import Rows
from lorascope.data.split import choose_rows, default_eval_rows, first_occurrences, hold_out
from lorascope.errors import InputError
from lorascope.message import Message, Value
from lorascope.spec.schema import StudySpec


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Rows:
    """Usable rows of one split, with equal indices."""

    keys: tuple[tuple[str, str], ...]
    """Prompt and whole text."""
    examples: tuple[Example, ...]
    notes: tuple[Message, ...]


def prepare(spec: StudySpec, tokenizer: PreTrainedTokenizerBase) -> Splits:
    """Load, render, tokenise and split the rows of a study.

    Raises:
        InputError: the tokenizer has no end token, or the rows cannot be used.
    """
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
    dataset = load_rows(spec.dataset, spec.split)
    chosen = choose_format(spec, columns=dataset.columns, first_row=dataset.sample(), tokenizer=tokenizer)
    rows = _read(spec, spec.split, dataset, chosen, tokenizer)
    if spec.eval_split is None:
        train, held, notes = _split_by_seed(spec, rows)
    else:
        other = _read(spec, spec.eval_split, load_rows(spec.dataset, spec.eval_split), chosen, tokenizer)
        train, held, notes = _split_by_name(spec, rows, other)
    if len(held) < 2:
        raise InputError(
            "1 row is held out, and an interval needs at least two",
            remedy="hold out more rows (eval_examples, eval_split), or give rows with more different prompts",
        )
    if len(train) < spec.per_device_train_batch_size:
        raise InputError(
            f"{len(train)} rows are left for training, fewer than one batch of {spec.per_device_train_batch_size}",
            remedy="give more rows, hold out fewer (eval_examples), or lower per_device_train_batch_size",
        )
    return Splits(train=train, eval=held, data_hash=hash_splits((train, held)), format=chosen.name, notes=notes)


def _read(spec: StudySpec, split: str, dataset: Rows, chosen: Format, tokenizer: PreTrainedTokenizerBase) -> _Rows:
    missing = [column for column in chosen.columns if column not in dataset.columns]
    if missing:
        raise InputError(
            f"split {split!r} has no column {missing[0]!r}",
            remedy=f"the columns are: {', '.join(dataset.columns)}",
        )
    rendered: list[RenderedRow] = []
    dropped: Counter[Drop] = Counter()
    for number, cells in enumerate(dataset, start=1):
        row = chosen.render({column: cells.get(column) for column in chosen.columns}, number)
        if isinstance(row, Drop):
            dropped[row] += 1
        else:
            rendered.append(row)
    values: dict[str, Value] = {"split": split, "rows": len(dataset)}
    remarks = Counter(remark for row in rendered for remark in row.remarks)
    notes = dataset.notes + chosen.notes
    notes += tuple(Message(why.value, count=dropped[why], **values) for why in Drop if dropped[why])
    notes += tuple(Message(remark.value, count=remarks[remark], **values) for remark in Remark if remarks[remark])
    if not rendered:
        raise InputError(
            f"none of the {len(dataset)} rows of split {split!r} can be used: "
            + ", ".join(f"{count} {why.because}" for why, count in dropped.items()),
            remedy=f"fill the columns that are read ({', '.join(chosen.columns)}), or choose another format",
        )
    rows = _tokenise(spec, rendered, chosen, tokenizer, split)
    return replace(rows, notes=notes + rows.notes)


def _tokenise(
    spec: StudySpec,
    rendered: Sequence[RenderedRow],
    chosen: Format,
    tokenizer: PreTrainedTokenizerBase,
    split: str,
) -> _Rows:
    keys, examples = [], []
    n_truncated = 0
    needed: list[int] = []
    n_masked = 0
    rows = encode(rendered, tokenizer, is_chat=chosen.is_chat, completion_only=chosen.completion_only)
    for text, encoded in zip(rendered, rows, strict=True):
        example = encoded.truncate(spec.max_length)
        if example is not None:
            keys.append((text.prompt, text.text))
            examples.append(example)
            n_truncated += len(encoded.input_ids) > spec.max_length
        elif encoded.target_mask.any():
            needed.append(int(np.argmax(encoded.target_mask)) + 1)
        else:
            n_masked += 1
    if not examples:
        raise _no_targets(spec, len(rendered), needed)
    values: dict[str, Value] = {"split": split, "rows": len(rendered)}
    notes = _note(n_masked, Drop.NO_TARGET.value, **values)
    notes += _note(n_truncated, "rows.truncated", **values, tokens=spec.max_length)
    notes += _note(len(needed), "rows.cut_before_target", **values, tokens=spec.max_length)
    return _Rows(keys=tuple(keys), examples=tuple(examples), notes=notes)


def _no_targets(spec: StudySpec, n_rows: int, needed: Sequence[int]) -> InputError:
    if not needed:
        return InputError(
            f"none of the {n_rows} rows has a token to take the loss on",
            remedy="give rows with a completion, or messages with an assistant's turn",
        )
    return InputError(
        f"max_length {spec.max_length} leaves no target in any of the {n_rows} rows: all of them are longer before "
        "their completion begins",
        remedy=f"raise max_length; the shortest row's first target is token {min(needed)}",
    )


def _split_by_seed(
    spec: StudySpec, rows: _Rows
) -> tuple[tuple[Example, ...], tuple[Example, ...], tuple[Message, ...]]:
    n_rows = len(rows.examples)
    n_eval = spec.eval_examples or default_eval_rows(n_rows)
    if n_rows < n_eval + spec.per_device_train_batch_size:
        raise InputError(
            f"{n_rows} usable rows are too few for {n_eval} held-out rows and one batch of "
            f"{spec.per_device_train_batch_size}",
            remedy="give more rows, or lower eval_examples or per_device_train_batch_size",
        )
    split = hold_out(rows.keys, n_eval=n_eval, seed=spec.split_seed)
    if not split.eval:
        raise InputError(
            f"no rows can be held out: every prompt has more than {n_eval} rows, and no prompt may be in both halves",
            remedy="raise eval_examples, name an eval_split, or use the format 'text' where rows have no prompts",
        )
    notes = rows.notes
    if len(split.eval) < n_eval:
        notes += (Message("rows.fewer_held_out", asked=n_eval, count=len(split.eval)),)
    notes += _note(split.train_repeats, "rows.train_repeats")
    notes += _note(split.eval_repeats, "rows.eval_repeats")
    examples = rows.examples
    return tuple(examples[row] for row in split.train), tuple(examples[row] for row in split.eval), notes


def _split_by_name(
    spec: StudySpec, rows: _Rows, other: _Rows
) -> tuple[tuple[Example, ...], tuple[Example, ...], tuple[Message, ...]]:
    different = [row for row, is_first in enumerate(first_occurrences(other.keys)) if is_first]
    n_eval = spec.eval_examples or len(different)
    if len(different) < n_eval:
        raise InputError(
            f"eval_split {spec.eval_split!r} has {len(different)} different usable rows, fewer than "
            f"eval_examples {n_eval}",
            remedy="lower eval_examples or leave it out",
        )
    held = [different[row] for row in choose_rows(len(different), n_chosen=n_eval, seed=spec.split_seed)]
    held_prompts = {other.keys[row][0] for row in held}
    kept = [row for row, (prompt, _) in enumerate(rows.keys) if prompt not in held_prompts]
    repeats = len(kept) - sum(first_occurrences([rows.keys[row] for row in kept]))
    notes = rows.notes + other.notes
    notes += _note(len(rows.keys) - len(kept), "rows.shared_prompt")
    notes += _note(repeats, "rows.train_repeats")
    notes += _note(len(other.keys) - len(different), "rows.eval_repeats")
    return tuple(rows.examples[row] for row in kept), tuple(other.examples[row] for row in held), notes


def _note(count: int, code: str, **values: Value) -> tuple[Message, ...]:
    return (Message(code, count=count, **values),) if count else ()

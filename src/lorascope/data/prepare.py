"""Data preparation: load, render, tokenise and split the rows of a study."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date

from transformers import PreTrainedTokenizerBase

from lorascope.data.dataset import Splits, hash_splits
from lorascope.data.encoded import CUT, NO_END, RENDERED, TRUNCATED, EncodedRows, Encoder, join_encoded
from lorascope.data.formats.detect import Format
from lorascope.data.formats.rendering import Drop, Remark
from lorascope.data.formats.template import prints_date
from lorascope.data.halves import evaluated_first, held_out_alone, note, split_by_name, split_by_seed
from lorascope.data.left_over import further_rows, load_left_over
from lorascope.data.minhash import check_available
from lorascope.data.processes import Progress, encode_rows
from lorascope.data.sources.mixture import load_data_sets
from lorascope.data.sources.rows import Rows
from lorascope.errors import InputError
from lorascope.message import Message, Value
from lorascope.spec.schema import StudySpec


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Read:
    rows: EncodedRows
    notes: tuple[Message, ...]


def prepare(
    spec: StudySpec,
    tokenizer: PreTrainedTokenizerBase,
    *,
    end_ids: Collection[int] = (),
    processes: int = 1,
    tell: Progress | None = None,
    before_hash: str | None = None,
) -> Splits:
    """Load, render, tokenise and split the rows of a study.

    Args:
        spec: the study.
        tokenizer: of its model.
        end_ids: tokens that stop the model beside the tokenizer's end token.
        processes: how many may tokenise at once.
        tell: called with the number of tokenised rows and of all rows, where that takes long.
        before_hash: the rows of the run that is continued. One that began without ``until_decided`` keeps its halves,
            and has no further held-out rows but those outside of its split.

    Raises:
        InputError: the tokenizer has no end token, or the rows cannot be used.
    """
    _check(spec, tokenizer)
    spec = fix_date(spec, tokenizer)
    data_sets = load_data_sets(spec, spec.split, mixed=True)
    encoders = [make_encoder(spec, tokenizer, rows, frozenset(end_ids)) for rows in data_sets]

    def read(data_sets: Sequence[Rows], split: str | tuple[str, ...]) -> _Read:
        parts = [
            _read(encoder, rows, one, processes=processes, tell=tell)
            for encoder, rows, one in zip(encoders, data_sets, spec.for_each(split), strict=True)
        ]
        return _Read(
            rows=parts[0].rows if len(parts) == 1 else join_encoded(part.rows for part in parts),
            notes=tuple(note for part in parts for note in part.notes),
        )

    found = read(data_sets, spec.split)
    other = read(load_data_sets(spec, spec.eval_split, mixed=False), spec.eval_split) if spec.eval_split else None
    left = load_left_over(spec)

    def split(one: StudySpec) -> Splits:
        if other is None:
            notes, halves = found.notes, split_by_seed(one, found.rows, n_further=len(left or ()))
        else:
            notes = tuple(dict.fromkeys(found.notes + other.notes))
            halves = split_by_name(one, found.rows, other.rows)
        held, spare = evaluated_first(one, halves)
        further, more = further_rows(one, left, encoders[0], found.rows, halves) if left else (held[:0], ())
        hashed = (halves.train, halves.held, further) if len(further) else (halves.train, halves.held)
        return Splits(
            train=halves.train,
            eval=tuple(held),
            spare=(*spare, *further),
            data_hash=hash_splits(hashed),
            halves_hash=hash_splits((halves.train, halves.held)),
            format=", ".join(dict.fromkeys(encoder.format.name for encoder in encoders)),
            notes=notes + halves.notes + note(len(spare), "rows.kept_for_looks") + more,
            lengths=found.rows.whole_lengths,
        )

    splits = split(spec)
    if spec.until_decided and before_hash not in (None, splits.data_hash):
        as_begun = split(spec.model_copy(update={"until_decided": False}))
        if before_hash in (as_begun.data_hash, as_begun.halves_hash):
            return as_begun
    return splits


def prepare_held_out(
    spec: StudySpec, tokenizer: PreTrainedTokenizerBase, *, end_ids: Collection[int] = (), processes: int = 1
) -> Splits:
    """Load, render and tokenise rows that nothing is trained on: those of ``split``, each once; see ``held_out_alone``.

    Raises:
        InputError: the tokenizer has no end token, or the rows cannot be used or are too few.
    """
    _check(spec, tokenizer)
    spec = fix_date(spec, tokenizer)
    data_sets = load_data_sets(spec, spec.split, mixed=True)
    encoders = [make_encoder(spec, tokenizer, rows, frozenset(end_ids)) for rows in data_sets]
    parts = [
        _read(encoder, rows, one, processes=processes, tell=None)
        for encoder, rows, one in zip(encoders, data_sets, spec.for_each(spec.split), strict=True)
    ]
    held, repeats = held_out_alone(spec, join_encoded(part.rows for part in parts))
    return Splits(
        train=held[:0],
        eval=tuple(held),
        data_hash=hash_splits([held]),
        format=", ".join(dict.fromkeys(encoder.format.name for encoder in encoders)),
        notes=tuple(note for part in parts for note in part.notes) + repeats,
    )


def fix_date(spec: StudySpec, tokenizer: PreTrainedTokenizerBase) -> StudySpec:
    """Return the study with today's date as ``template_date``, if its chat template prints one and none is given."""
    if spec.template_date is not None or not prints_date(tokenizer):
        return spec
    return spec.model_copy(update={"template_date": date.today()})


def make_encoder(spec: StudySpec, tokenizer: PreTrainedTokenizerBase, rows: Rows, end_ids: frozenset[int]) -> Encoder:
    """Return the encoder of a data set's rows. Raises InputError where their format is not known."""
    encoder = Encoder(spec=spec, tokenizer=tokenizer, columns=rows.columns, sample=rows.sample(), end_ids=end_ids)
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
    return _Read(rows=encoded, notes=rows.notes + chosen.notes + _notes(encoder, encoded, len(rows), label))


def _check(spec: StudySpec, tokenizer: PreTrainedTokenizerBase) -> None:
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"the tokenizer of {spec.model!r} has no end token",
            remedy="choose a model whose tokenizer sets eos_token, or set it in tokenizer_config.json",
        )
    if spec.dedupe == "minhash":
        check_available()
    both = zip(spec.for_each(spec.split), spec.for_each(spec.eval_split or ()), strict=False)
    if shared := [held for train, held in both if train.strip() == held.strip()]:
        raise InputError(
            f"eval_split {shared[0]!r} is the split that is trained on",
            remedy="name another split, or leave eval_split out to have rows held out by split_seed",
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


def _notes(encoder: Encoder, encoded: EncodedRows, n_rows: int, split: str) -> tuple[Message, ...]:
    counts = encoded.counts
    notes: list[Message] = []
    for code in (*Drop, *Remark, NO_END, TRUNCATED, CUT):
        values: dict[str, Value] = {"split": split, "rows": n_rows}
        if code in {Drop.NO_TARGET, NO_END, TRUNCATED, CUT}:
            values["rows"] = counts[RENDERED]
        if code in {TRUNCATED, CUT}:
            values["tokens"] = encoder.spec.max_length
        if code == NO_END:
            values["end"] = str(encoder.tokenizer.eos_token)
        notes += note(counts[code], str(code), **values)
    return tuple(notes)

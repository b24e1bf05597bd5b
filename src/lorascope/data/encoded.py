"""Rows from their cells to tokens and keys, a batch at a time."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from lorascope.data.dataset import complement_targets
from lorascope.data.encode import encode
from lorascope.data.formats.detect import Format, choose_format
from lorascope.data.formats.rendering import Drop, RenderedRow
from lorascope.data.minhash import signature
from lorascope.data.row_keys import KEYS, keys_of
from lorascope.data.sources.rows import Row
from lorascope.spec.schema import StudySpec

COLUMNS = ("tokens", "lengths", "keys", "signatures", "whole_lengths")
"""Names of the arrays of EncodedRows."""
RENDERED, NO_END = "rendered", "rows.no_end"
"""Counted rows: those with text, and those of them that were not cut and have no end token among their targets."""
TRUNCATED, CUT = "rows.truncated", "rows.cut_before_target"
"""Counted rows: those cut at max_length with a target left, and those without one."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EncodedRows:
    """Usable rows in their order, and how many were not."""

    tokens: npt.NDArray[np.int32]
    """[T] as in ``Examples``."""
    lengths: npt.NDArray[np.int64]
    """[rows] tokens of each row."""
    keys: npt.NDArray[np.uint64]
    """[rows, keys, 2]: see ``row_keys``."""
    signatures: npt.NDArray[np.uint32]
    """[rows, numbers] of ``minhash``, or [rows, 0] where the study does not look for similar rows."""
    whole_lengths: npt.NDArray[np.int64]
    """[rendered rows] tokens of each row before it was cut, those without a target as well."""
    counts: Counter[str] = field(default_factory=Counter)
    """Rows by the code of the note about them."""
    first_target: int | None = None
    """The fewest tokens that keep a target, of the rows that ``max_length`` leaves none."""

    def __len__(self) -> int:
        return len(self.lengths)


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoder:
    """Encodes rows of one data set; it can be pickled."""

    spec: StudySpec
    tokenizer: PreTrainedTokenizerBase
    columns: tuple[str, ...]
    sample: Row
    """A row with every column, by which the format is chosen."""
    end_ids: frozenset[int] = frozenset()
    """Tokens that stop the model beside the tokenizer's end token."""

    @cached_property
    def format(self) -> Format:
        """The format of the rows. Raises InputError if there is none, or not one."""
        return choose_format(
            self.spec,
            columns=self.columns,
            first_row=self.sample,
            tokenizer=self.tokenizer,
            end_ids=self.end_ids,
        )

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "format"}  # its functions stay here

    def encode(self, rows: Iterable[Row], first_number: int) -> EncodedRows:
        """Encode rows, of which the first has this number. Raises InputError with the number of an unusable row."""
        chosen = self.format
        counts: Counter[str] = Counter()
        cells, rendered = self._render(rows, first_number, counts)
        encoded = encode(rendered, self.tokenizer, is_chat=chosen.is_chat, completion_only=chosen.completion_only)
        parts, keys, needed, signatures, whole = [], [], [], [], []
        for row, text, tokenized in zip(cells, rendered, encoded, strict=True):
            example = tokenized.truncate(self.spec.max_length)
            whole.append(len(tokenized.input_ids))
            if example is not None:
                parts.append(complement_targets(example.input_ids, example.target_mask))
                keys.append(keys_of(text, example.input_ids))
                is_cut = whole[-1] > self.spec.max_length
                targets = example.input_ids[example.target_mask]
                counts[TRUNCATED] += is_cut
                counts[NO_END] += not is_cut and chosen.end_ids.isdisjoint(targets.tolist())
                if self.spec.dedupe == "minhash":
                    signatures.append(signature(row))
            elif tokenized.target_mask.any():
                counts[CUT] += 1
                needed.append(int(np.argmax(tokenized.target_mask)) + 1)
            else:
                counts[Drop.NO_TARGET] += 1
        return EncodedRows(
            tokens=np.concatenate([np.empty(0, np.int32), *parts]),
            lengths=np.array([len(part) for part in parts], dtype=np.int64),
            keys=np.frombuffer(b"".join(keys), dtype="<u8").reshape(-1, KEYS, 2),
            signatures=np.array(signatures, dtype=np.uint32).reshape(len(parts), -1 if signatures else 0),
            whole_lengths=np.array(whole, dtype=np.int64),
            counts=+counts,
            first_target=min(needed, default=None),
        )

    def _render(
        self, rows: Iterable[Row], first_number: int, counts: Counter[str]
    ) -> tuple[list[Row], list[RenderedRow]]:
        """Return the rows that have text, and their text."""
        cells, rendered = [], []
        for number, row in enumerate(rows, start=first_number):
            text = self.format.render(row, number)
            if isinstance(text, Drop):
                counts[text] += 1
            else:
                cells.append(row)
                rendered.append(text)
                counts.update(text.remarks)
        counts[RENDERED] = len(rendered)
        return cells, rendered


def join_encoded(parts: Iterable[EncodedRows]) -> EncodedRows:
    """Join batches; they are copied once, into memory that grows with them."""
    columns = {name: bytearray() for name in COLUMNS}
    counts: Counter[str] = Counter()
    needed = []
    for part in parts:
        for name in COLUMNS:
            columns[name] += getattr(part, name).tobytes()
        counts += part.counts
        needed.append(part.first_target)
    lengths = np.frombuffer(columns["lengths"], dtype=np.int64)
    return EncodedRows(
        tokens=np.frombuffer(columns["tokens"], dtype=np.int32),
        lengths=lengths,
        keys=np.frombuffer(columns["keys"], dtype=np.uint64).reshape(-1, KEYS, 2),
        signatures=np.frombuffer(columns["signatures"], dtype=np.uint32).reshape(len(lengths), -1)
        if columns["signatures"]
        else np.empty((len(lengths), 0), np.uint32),
        whole_lengths=np.frombuffer(columns["whole_lengths"], dtype=np.int64),
        counts=counts,
        first_target=min((one for one in needed if one is not None), default=None),
    )

"""Tokenised examples, and their split into training and held-out rows."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Self, overload

import numpy as np
import numpy.typing as npt

from lorascope.message import Message

_HASHED_ROWS = 1000
"""Rows that are hashed at once."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Example:
    """One tokenised row."""

    input_ids: npt.NDArray[np.int64]
    """[L] token ids, L >= 2."""
    target_mask: npt.NDArray[np.bool_]
    """[L] True for targets, which are predicted from the token before; never True for the first token."""

    @property
    def n_tokens(self) -> int:
        """Number of tokens."""
        return len(self.input_ids)

    @property
    def n_targets(self) -> int:
        """Number of target tokens."""
        return int(np.count_nonzero(self.target_mask))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Examples(Sequence[Example]):
    """Rows in columns, four bytes a token; each access makes its Example anew."""

    tokens: npt.NDArray[np.int32]
    """[T] token ids of all rows, one row behind another; a target is stored as its complement, ``~id``."""
    starts: npt.NDArray[np.int64]
    """[rows] place of each row's first token in ``tokens``."""
    n_tokens: npt.NDArray[np.int64]
    """[rows] tokens of each row."""

    @classmethod
    def of(cls, examples: Iterable[Example]) -> Self:
        """Store examples in columns."""
        parts = [complement_targets(example.input_ids, example.target_mask) for example in examples]
        lengths = np.array([len(part) for part in parts], dtype=np.int64)
        return cls.of_columns(np.concatenate([np.empty(0, np.int32), *parts]), lengths)

    @classmethod
    def of_columns(cls, tokens: npt.NDArray[np.int32], lengths: npt.NDArray[np.int64]) -> Self:
        """Return the rows of these lengths, which lie in ``tokens`` behind one another."""
        return cls(tokens=tokens, starts=np.cumsum(lengths) - lengths, n_tokens=lengths)

    def take(self, rows: npt.NDArray[np.int64]) -> Self:
        """Return these rows in this order; tokens are shared, not copied."""
        return type(self)(tokens=self.tokens, starts=self.starts[rows], n_tokens=self.n_tokens[rows])

    @property
    def n_targets(self) -> npt.NDArray[np.int64]:
        """[rows] target tokens of each row."""
        return np.array([np.count_nonzero(row < 0) for row in self.stored_rows()], dtype=np.int64)

    @property
    def largest_id(self) -> int:
        """The largest token id of any row."""
        stored = self.tokens
        return max(int(stored.max(initial=0)), ~int(stored.min(initial=-1)))

    def stored_rows(self) -> Iterator[npt.NDArray[np.int32]]:
        """Yield each row as it is stored, [L]."""
        for start, length in zip(self.starts.tolist(), self.n_tokens.tolist(), strict=True):
            yield self.tokens[start : start + length]

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> "Example | Examples":
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        start = int(self.starts[index])
        return _example(self.tokens[start : start + int(self.n_tokens[index])])

    def __iter__(self) -> Iterator[Example]:
        return map(_example, self.stored_rows())


def complement_targets(ids: npt.NDArray[np.int64], mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Return token ids with those of targets complemented, [L] all."""
    return np.where(mask, ~ids, ids).astype(np.int32)


def _example(stored: npt.NDArray[np.int32]) -> Example:
    mask = stored < 0
    return Example(input_ids=np.where(mask, ~stored, stored).astype(np.int64), target_mask=mask)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Splits:
    """Training and held-out rows of one study."""

    train: Examples
    eval: tuple[Example, ...]
    """Held-out rows, which share no prompt with ``train``."""
    spare: tuple[Example, ...] = ()
    """Further rows that no trial trains on, in the order in which a sequential study evaluates them."""
    data_hash: str
    """SHA-256 in hex of all token ids, masks and the split."""
    halves_hash: str = ""
    """The same without the rows from outside of the split: that of a study which began without ``until_decided``."""
    format: str
    """Row format, such as ``alpaca``; several, if data sets differ."""
    notes: tuple[Message, ...]
    """Notes on how the rows were read, cut, dropped and split."""
    lengths: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """[rows] tokens of each row of the training split before it was cut, those that were dropped for it as well."""


def hash_splits(splits: Iterable[Examples]) -> str:
    """Return the SHA-256 in hex of splits in their order, equal on every platform."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update(np.int64(len(split)).astype("<i8").tobytes())
        for first in range(0, len(split), _HASHED_ROWS):
            rows = split[first : first + _HASHED_ROWS]
            stored = np.concatenate(list(rows.stored_rows()))
            targets = stored < 0
            ids, mask = np.where(targets, ~stored, stored).astype("<i8"), targets.astype("u1")
            lengths = rows.n_tokens.astype("<i8")
            ends = np.cumsum(lengths).tolist()
            for row, (start, end) in enumerate(pairwise([0, *ends])):
                digest.update(lengths[row].tobytes())
                digest.update(ids[start:end].data)
                digest.update(mask[start:end].data)
    return digest.hexdigest()

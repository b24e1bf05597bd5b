"""Rows of a data set as they were written: readable again and again, one at a time, without unification."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import numpy.typing as npt

from lorascope.message import Message

Row = Mapping[str, object]
Chosen = npt.NDArray[np.int64] | None
"""Ascending numbers of rows, from 0; None for all."""
_SAMPLED = 100


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Rows:
    """Rows of one split, read from their source in each iteration."""

    name: str
    """The data set, as the user named it."""
    columns: tuple[str, ...]
    """Columns that any row has, in order."""
    count: int
    read: Callable[[Chosen], Iterator[Row]]
    """Read the chosen rows. A row may lack columns of others."""
    hash_content: Callable[[], str]
    """Hash what the rows are read from, in hex."""
    chosen: Chosen = None
    notes: tuple[Message, ...] = ()

    def __len__(self) -> int:
        return self.count if self.chosen is None else len(self.chosen)

    def __iter__(self) -> Iterator[Row]:
        return self.read(self.chosen)

    def select(self, chosen: npt.NDArray[np.int64]) -> "Rows":
        """Return these rows alone; their numbers ascend."""
        return replace(self, chosen=chosen if self.chosen is None else self.chosen[chosen])

    def sample(self) -> dict[str, object]:
        """Return each column's first value that is not null, of the first hundred rows."""
        first: dict[str, object] = dict.fromkeys(self.columns)
        for row in islice(self, _SAMPLED):
            first |= {name: value for name, value in row.items() if first[name] is None}
        return first

    def fingerprint(self) -> str:
        """Return the SHA-256 in hex of the rows' source and of which are chosen."""
        chosen = b"all" if self.chosen is None else self.chosen.astype("<i8").tobytes()
        return hashlib.sha256(self.hash_content().encode() + chosen).hexdigest()


def rows_of_list(name: str, rows: Sequence[Row], *, notes: tuple[Message, ...] = ()) -> Rows:
    """Return rows that are held in memory."""
    return Rows(
        name=name,
        columns=tuple(dict.fromkeys(column for row in rows for column in row)),
        count=len(rows),
        read=lambda chosen: iter(rows) if chosen is None else (rows[row] for row in chosen.tolist()),
        hash_content=lambda: hashlib.sha256(repr(rows).encode(errors="surrogatepass")).hexdigest(),
        notes=notes,
    )


def picked(rows: Iterator[Row], chosen: Chosen) -> Iterator[Row]:
    """Yield the chosen rows of a source that can only be read from its start."""
    if chosen is None:
        yield from rows
        return
    before = -1
    for row in chosen.tolist():
        yield next(islice(rows, row - before - 1, None))
        before = row


def joined(parts: Sequence[Rows]) -> Rows:
    """Return the rows of several parts of one data set, one part behind another."""
    ends = np.cumsum([len(part) for part in parts])

    def read(chosen: Chosen) -> Iterator[Row]:
        for part, end in zip(parts, ends.tolist(), strict=True):
            start = end - len(part)
            within = None if chosen is None else chosen[(chosen >= start) & (chosen < end)] - start
            yield from part if within is None else part.select(within)

    return Rows(
        name=parts[0].name,
        columns=tuple(dict.fromkeys(column for part in parts for column in part.columns)),
        count=int(ends[-1]),
        read=read,
        hash_content=lambda: "".join(part.fingerprint() for part in parts),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )

"""CSV as programs and spreadsheets write it: cells are kept as text."""

import csv
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lorascope.data.sources.problems import UnusableError, hash_file, named, open_text, read_text
from lorascope.data.sources.rows import Chosen, Row, Rows, picked
from lorascope.message import Message

_SEPARATORS = (",", ";", "\t")
_SAID = re.compile("sep=(.)\r?\n?")
"""A first line by which Excel says how cells are separated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layout:
    separator: str
    skipped: int
    """Lines before the header."""
    width: int
    """Cells of a row."""
    columns: tuple[tuple[int, str], ...]
    """Place and name of each column that has a name."""
    notes: tuple[Message, ...]


def read_csv(path: Path) -> Rows:
    """Read a table with its column names in the first line.

    Cells are separated by commas, semicolons or tabs. Blanks around names are removed; columns without a name are left
    out if they are an index in front, or empty.
    """
    try:
        layout = _find_layout(path)
        count = sum(1 for _ in _read_rows(path, layout))
    except UnicodeDecodeError:
        read_text(path)  # raises with the byte's place in the file
        raise
    return Rows(
        name=str(path),
        columns=tuple(name for _, name in layout.columns),
        count=count,
        read=partial(_read_again, path, layout),
        hash_content=partial(hash_file, path),
        notes=layout.notes,
    )


def _read_again(path: Path, layout: _Layout, chosen: Chosen) -> Iterator[Row]:
    with named(path):
        yield from picked(_read_rows(path, layout), chosen)


def _find_layout(path: Path) -> _Layout:
    with open_text(path) as file:
        said = _SAID.fullmatch(file.readline())
    skipped = 1 if said else 0
    separators = (said[1],) if said else _SEPARATORS
    # the most columns, and the comma where equally many: a header seldom holds the other separators as text
    separator = max(separators, key=lambda sign: len(_header(path, sign, skipped)))
    header = next(_records(path, separator, skipped), (0, ()))[1]
    if not header:
        read_text(path)  # raises that there is nothing but white space
    names = [name.strip() for name in header]
    columns = tuple((place, name) for place, name in enumerate(names) if name)
    if len({name for _, name in columns}) != len(columns) or not columns:
        raise UnusableError(f" has the columns {header}", "name each column of the first line differently")
    if any("\0" in name for name in names):
        raise UnusableError(f" has a NUL character in the name of a column: {header}", "rename the column")
    notes = []
    if separator != ",":
        notes.append(Message("rows.separator", file=path.name, separator=separator))
    if blank := tuple(name for name in header if name.strip() and name != name.strip()):
        notes.append(Message("rows.blanks_in_header", file=path.name, names=tuple(map(repr, blank))))
    if len(columns) < len(names):
        notes.append(Message("rows.unnamed_columns", file=path.name, count=len(names) - len(columns)))
    return _Layout(separator=separator, skipped=skipped, width=len(names), columns=columns, notes=tuple(notes))


def _header(path: Path, separator: str, skipped: int) -> Sequence[str]:
    """Return the first record; nothing if it cannot be read with this separator."""
    try:
        return next(_records(path, separator, skipped), (0, ()))[1]
    except UnusableError:  # a quote stands where this separator allows none
        return ()


def _records(path: Path, separator: str, skipped: int) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield each record that is not blank, with the number of its last line."""
    limit = csv.field_size_limit(sys.maxsize)  # the module's default refuses cells over 128 KiB
    try:
        with open_text(path) as file:
            for _ in range(skipped):
                file.readline()
            reader = csv.reader(file, strict=True, delimiter=separator)
            try:
                for record in reader:
                    if record:
                        yield reader.line_num + skipped, record
            except csv.Error as error:
                problem = f" is not CSV at line {reader.line_num + skipped}: {error}"
                remedy = "close the open quote; at the end of the file it may be truncated"
                raise UnusableError(problem, remedy) from error
    finally:
        csv.field_size_limit(limit)


def _read_rows(path: Path, layout: _Layout) -> Iterator[Row]:
    named_places = {place for place, _ in layout.columns}
    # an index in front, as pandas writes it, may hold anything
    unnamed = [place for place in range(1, layout.width) if place not in named_places]
    records = _records(path, layout.separator, layout.skipped)
    next(records)
    for line, record in records:
        if len(record) != layout.width:
            problem = f", line {line}: {len(record)} cells under {layout.width} columns"
            sign = "commas" if layout.separator == "," else repr(layout.separator)
            raise UnusableError(problem, f"put cells with {sign} or line breaks in double quotes")
        for place in unnamed:
            if record[place].strip():
                problem = f", line {line}: {record[place]!r:.60} stands in column {place + 1}, which has no name"
                raise UnusableError(problem, "name that column in the first line, or empty it")
        yield {name: record[place] for place, name in layout.columns}

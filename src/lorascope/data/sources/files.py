"""Data files: JSON, JSON Lines, CSV and Parquet."""

import csv
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from datasets import Dataset
from datasets.table import InMemoryTable
from pyarrow.parquet import read_table

from lorascope.errors import InputError
from lorascope.spec.fields.rows import FILE_SUFFIXES

_FILL = "give a file with rows in it"


class _UnusableError(Exception):
    """Why a file is no table of rows: the continuation of "data file NAME", and the remedy."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.remedy = remedy


def read_file(path: Path) -> Dataset:
    """Read a file in the format of its suffix.

    Raises:
        InputError: the file is not a table of rows; the message says where.
    """
    try:
        return _read(path)
    except OSError as error:
        problem, remedy = f" cannot be read: {error}", "check the path, the file and its permissions"
        raise InputError(f"data file {str(path)!r}{problem}", remedy=remedy) from error
    except _UnusableError as error:
        raise InputError(f"data file {str(path)!r}{error}", remedy=error.remedy) from error


def _read(path: Path) -> Dataset:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise _UnusableError(f" ends in {path.suffix!r}", f"give a file that ends in one of {', '.join(READERS)}")
    if path.stat().st_size == 0:
        raise _UnusableError(" is empty (0 bytes)", _FILL)
    rows = reader(path)
    if len(rows) == 0:
        raise _UnusableError(" holds no rows", _FILL)
    return rows


def _read_text(path: Path) -> str:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = f" is not UTF-8: byte {data[error.start]:#04x} at offset {error.start}, line {line}"
        raise _UnusableError(problem, "save the file as UTF-8") from error
    if not text.strip():
        raise _UnusableError(" holds nothing but white space", _FILL)
    return text


def _read_json(path: Path) -> Dataset:
    text = _read_text(path)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text[error.pos :].startswith("{"):  # JSON Lines with another suffix
            return _from_lines(text)
        raise _not_json(error, line=error.lineno, at_end=error.pos >= len(text.rstrip())) from error
    except RecursionError as error:
        raise _UnusableError(" is nested too deeply", "give a list of flat objects") from error
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list)]
        content = lists[0] if len(lists) == 1 else content
    if not isinstance(content, list):
        problem = f" holds a JSON {_json_type(content)} that has no list of rows"
        raise _UnusableError(problem, "give a list of objects, or an object with exactly one such list")
    return _from_objects(content, unit="row")


def _read_jsonl(path: Path) -> Dataset:
    return _from_lines(_read_text(path))


def _from_lines(text: str) -> Dataset:
    # str.splitlines would also split at separators that JSON allows inside strings
    lines = text.split("\n")
    last = max(number for number, line in enumerate(lines) if line.strip())
    rows = []
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            at_end = number == last and error.pos >= len(line.rstrip())
            raise _not_json(error, line=number + 1, at_end=at_end) from error
        except RecursionError as error:
            raise _UnusableError(f", line {number + 1}, is nested too deeply", "give flat objects") from error
    return _from_objects(rows, unit="object")


def _not_json(error: json.JSONDecodeError, *, line: int, at_end: bool) -> _UnusableError:
    # an unterminated string is reported where it began, perhaps long before the end of a truncated file
    if at_end or error.msg.startswith("Unterminated string"):
        problem, remedy = "ends in the middle of a value", "the file looks truncated: copy or download it again"
    else:
        problem, remedy = "is not JSON", "correct the file there, or give JSON Lines as .jsonl"
    return _UnusableError(f" {problem}: {error.msg} at line {line}, column {error.colno}", remedy)


def _json_type(value: object) -> str:
    names = {dict: "object", list: "list", str: "string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "number")


def _from_objects(objects: Sequence[object], *, unit: str) -> Dataset:
    rows: list[Mapping[str, object]] = []
    for number, item in enumerate(objects, start=1):
        if not isinstance(item, dict):
            problem = f": {unit} {number} is a {_json_type(item)}, not an object"
            raise _UnusableError(problem, "make every row an object with named columns")
        rows.append(item)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if rows and not columns:
        raise _UnusableError(" has rows without any column", "name the columns of the rows")
    return _to_dataset({column: [row.get(column) for row in rows] for column in columns})


def _to_dataset(columns: Mapping[str, list[object]]) -> Dataset:
    for column, cells in columns.items():
        _check_column(column, cells)
    try:
        return Dataset.from_dict(dict(columns))
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        problem = f" has a column whose values do not fit together: {error}"
        raise _UnusableError(problem, "give every column values of one kind, nested ones too") from error


def _check_column(column: str, cells: Sequence[object]) -> None:
    if "\0" in column:
        raise _UnusableError(f" has a NUL character in the name of column {column!r}", "rename the column")
    first: tuple[int, str] | None = None
    for number, cell in enumerate(cells, start=1):
        if cell is None:
            continue
        if isinstance(cell, str):
            _check_text(column, cell, number)
        kind = _json_type(cell)
        if first is not None and kind != first[1]:
            problem = f": column {column!r} holds a {kind} in row {number}, a {first[1]} in row {first[0]}"
            raise _UnusableError(problem, "give the column values of one kind")
        first = first or (number, kind)


def _check_text(column: str, cell: str, number: int) -> None:
    try:
        cell.encode()
    except UnicodeEncodeError as error:
        problem = f": row {number}, column {column!r} holds half a character (a lone surrogate)"
        raise _UnusableError(problem, "remove that escape sequence from the row") from error


def _read_csv(path: Path) -> Dataset:
    text = _read_text(path)
    limit = csv.field_size_limit(sys.maxsize)  # the module's default refuses cells over 128 KiB
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = next(reader)
        rows = []
        for row in reader:
            if row and len(row) != len(header):
                problem = f", line {reader.line_num}: {len(row)} cells under {len(header)} columns"
                raise _UnusableError(problem, "put cells with commas or line breaks in double quotes")
            rows.append(row)
    except csv.Error as error:
        problem = f" is not CSV at line {reader.line_num}: {error}"
        raise _UnusableError(problem, "close the open quote; at the end of the file it may be truncated") from error
    finally:
        csv.field_size_limit(limit)
    if len(set(header)) != len(header) or "" in header:
        raise _UnusableError(f" has the columns {header}", "name each column of the first line differently")
    filled = [row for row in rows if row]
    return _to_dataset({column: [row[index] for row in filled] for index, column in enumerate(header)})


def _read_parquet(path: Path) -> Dataset:
    try:
        return Dataset(InMemoryTable(read_table(path)))
    except pa.ArrowException as error:
        problem = f" is not a readable Parquet file: {error}"
        raise _UnusableError(problem, "the file may be truncated: copy or download it again") from error


READERS: dict[str, Callable[[Path], Dataset]] = dict(
    zip(FILE_SUFFIXES, (_read_json, _read_jsonl, _read_csv, _read_parquet), strict=True)
)

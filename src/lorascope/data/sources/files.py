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
from lorascope.spec.schema import FILE_SUFFIXES

Row = Mapping[str, object]


def read_file(path: Path) -> Dataset:
    """Read a file in the format of its suffix.

    Raises:
        InputError: the file is not a table of rows; the message says where.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"data file {str(path)!r} ends in {path.suffix!r}",
            remedy=f"give a file that ends in one of {', '.join(READERS)}",
        )
    try:
        size = path.stat().st_size
        if size == 0:
            raise InputError(f"data file {str(path)!r} is empty (0 bytes)", remedy="give a file with rows in it")
        rows = reader(path)
    except OSError as error:
        raise InputError(
            f"data file {str(path)!r} cannot be read: {error}", remedy="check the path, the file and its permissions"
        ) from error
    if len(rows) == 0:
        raise InputError(f"data file {str(path)!r} holds no rows", remedy="give a file with rows in it")
    return rows


def _read_text(path: Path) -> str:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"data file {str(path)!r} is not UTF-8: byte {data[error.start]:#04x} at offset {error.start}, line {line}",
            remedy="save the file as UTF-8",
        ) from error
    if not text.strip():
        raise InputError(f"data file {str(path)!r} holds nothing but white space", remedy="give a file with rows in it")
    return text


def _read_json(path: Path) -> Dataset:
    text = _read_text(path)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text[error.pos :].startswith("{"):  # JSON Lines with another suffix
            return _rows_of_lines(path, text)
        raise _not_json(path, error, line=error.lineno, at_end=error.pos >= len(text.rstrip())) from error
    except RecursionError as error:
        raise InputError(
            f"data file {str(path)!r} is nested too deeply", remedy="give a list of flat objects"
        ) from error
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list)]
        content = lists[0] if len(lists) == 1 else content
    if not isinstance(content, list):
        raise InputError(
            f"data file {str(path)!r} holds a JSON {_json_type(content)} that has no list of rows",
            remedy="give a list of objects, or an object with exactly one such list",
        )
    return _from_objects(path, content, unit="row")


def _read_jsonl(path: Path) -> Dataset:
    return _rows_of_lines(path, _read_text(path))


def _rows_of_lines(path: Path, text: str) -> Dataset:
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
            raise _not_json(path, error, line=number + 1, at_end=at_end) from error
        except RecursionError as error:
            raise InputError(
                f"data file {str(path)!r}, line {number + 1}, is nested too deeply", remedy="give flat objects"
            ) from error
    return _from_objects(path, rows, unit="object")


def _not_json(path: Path, error: json.JSONDecodeError, *, line: int, at_end: bool) -> InputError:
    # an unterminated string is reported where it began, perhaps long before the end of a truncated file
    if at_end or error.msg.startswith("Unterminated string"):
        problem, remedy = "ends in the middle of a value", "the file looks truncated: copy or download it again"
    else:
        problem, remedy = "is not JSON", "correct the file there, or give JSON Lines as .jsonl"
    return InputError(
        f"data file {str(path)!r} {problem}: {error.msg} at line {line}, column {error.colno}", remedy=remedy
    )


def _json_type(value: object) -> str:
    names = {dict: "object", list: "list", str: "string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "number")


def _from_objects(path: Path, objects: Sequence[object], *, unit: str) -> Dataset:
    rows: list[Row] = []
    for number, item in enumerate(objects, start=1):
        if not isinstance(item, dict):
            raise InputError(
                f"data file {str(path)!r}: {unit} {number} is a {_json_type(item)}, not an object",
                remedy="make every row an object with named columns",
            )
        rows.append(item)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if rows and not columns:
        raise InputError(f"data file {str(path)!r} has rows without any column", remedy="name the columns of the rows")
    return _to_dataset(path, {column: [row.get(column) for row in rows] for column in columns})


def _to_dataset(path: Path, columns: Mapping[str, list[object]]) -> Dataset:
    for column, cells in columns.items():
        _check_column(path, column, cells)
    try:
        return Dataset.from_dict(dict(columns))
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"data file {str(path)!r} has a column whose values do not fit together: {error}",
            remedy="give every column values of one kind, nested ones too",
        ) from error


def _check_column(path: Path, column: str, cells: Sequence[object]) -> None:
    if "\0" in column:
        raise InputError(
            f"data file {str(path)!r} has a NUL character in the name of column {column!r}",
            remedy="rename the column",
        )
    first: tuple[int, str] | None = None
    for number, cell in enumerate(cells, start=1):
        if cell is None:
            continue
        if isinstance(cell, str):
            _check_text(path, column, cell, number)
        kind = _json_type(cell)
        if first is not None and kind != first[1]:
            raise InputError(
                f"data file {str(path)!r}: column {column!r} holds a {kind} in row {number}, "
                f"a {first[1]} in row {first[0]}",
                remedy="give the column values of one kind",
            )
        first = first or (number, kind)


def _check_text(path: Path, column: str, cell: str, number: int) -> None:
    try:
        cell.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"data file {str(path)!r}: row {number}, column {column!r} holds half a character (a lone surrogate)",
            remedy="remove that escape sequence from the row",
        ) from error


def _read_csv(path: Path) -> Dataset:
    text = _read_text(path)
    limit = csv.field_size_limit(sys.maxsize)  # the module's default refuses cells over 128 KiB
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = next(reader)
        rows = []
        for row in reader:
            if row and len(row) != len(header):
                raise InputError(
                    f"data file {str(path)!r}, line {reader.line_num}: {len(row)} cells under {len(header)} columns",
                    remedy="put cells with commas or line breaks in double quotes",
                )
            rows.append(row)
    except csv.Error as error:
        raise InputError(
            f"data file {str(path)!r} is not CSV at line {reader.line_num}: {error}",
            remedy="close the open quote; at the end of the file it may be truncated",
        ) from error
    finally:
        csv.field_size_limit(limit)
    if len(set(header)) != len(header) or "" in header:
        raise InputError(
            f"data file {str(path)!r} has the columns {header}", remedy="name each column of the first line differently"
        )
    filled = [row for row in rows if row]
    return _to_dataset(path, {column: [row[index] for row in filled] for index, column in enumerate(header)})


def _read_parquet(path: Path) -> Dataset:
    try:
        return Dataset(InMemoryTable(read_table(path)))
    except pa.ArrowException as error:
        raise InputError(
            f"data file {str(path)!r} is not a readable Parquet file: {error}",
            remedy="the file may be truncated: copy or download it again",
        ) from error


READERS: dict[str, Callable[[Path], Dataset]] = dict(
    zip(FILE_SUFFIXES, (_read_json, _read_jsonl, _read_csv, _read_parquet), strict=True)
)

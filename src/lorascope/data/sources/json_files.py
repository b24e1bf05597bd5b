"""JSON and JSON Lines: each row as it is parsed, so that none gets keys, nulls or kinds of another."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from lorascope.data.sources.problems import UnusableError, hash_file, named, open_bytes, open_text, read_text
from lorascope.data.sources.rows import Chosen, Row, Rows, picked, rows_of_list

_CHUNK = 1 << 20
"""Characters read at once; a longer element is read in as many as it needs."""


def read_json(path: Path) -> Rows:
    """Read a list of objects, an object with one such list, or JSON Lines under this suffix."""
    try:
        return _streamed(path, _list_elements, unit="row")
    except (ValueError, RecursionError):  # no list, or broken: the whole file says where
        return _read_whole(path)


def read_jsonl(path: Path) -> Rows:
    """Read one object a line. Blank lines are skipped."""
    return _streamed(path, _line_objects, unit="object")


def _streamed(path: Path, objects: Callable[[Path], Iterator[object]], *, unit: str) -> Rows:
    """Check all objects of a file once, and read them again when they are used."""
    columns: dict[str, None] = {}
    count = 0
    for row in _checked(objects(path), unit):
        columns.update(dict.fromkeys(row))
        count += 1
    if not count:
        read_text(path)  # raises if there is nothing but white space
    return Rows(
        name=str(path),
        columns=_check_columns(tuple(columns), count),
        count=count,
        read=partial(_read_again, path, objects, unit),
        hash_content=partial(hash_file, path),
    )


def _read_again(path: Path, objects: Callable[[Path], Iterator[object]], unit: str, chosen: Chosen) -> Iterator[Row]:
    with named(path):
        yield from picked(_checked(objects(path), unit), chosen)


def _checked(objects: Iterable[object], unit: str) -> Iterator[Row]:
    for number, item in enumerate(objects, start=1):
        if not isinstance(item, dict):
            problem = f": {unit} {number} is a {_json_type(item)}, not an object"
            raise UnusableError(problem, "make every row an object with named columns")
        yield item


def _check_columns(columns: tuple[str, ...], count: int) -> tuple[str, ...]:
    if count and not columns:
        raise UnusableError(" has rows without any column", "name the columns of the rows")
    return columns


def _line_objects(path: Path) -> Iterator[object]:
    # bytes are split at line feeds alone: str.splitlines would also split at separators that JSON allows in strings
    with open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                read_text(path)  # raises with the byte's place in the file
                raise
            if text.strip():
                yield _parse_line(text, number, is_last=lambda: not file.read().strip())


def _parse_line(text: str, number: int, *, is_last: Callable[[], bool]) -> object:
    try:
        return _check_surrogates(json.loads(text), text, f"line {number}")
    except json.JSONDecodeError as error:
        at_end = error.pos >= len(text.rstrip()) and is_last()
        raise _not_json(error, line=number, at_end=at_end) from error
    except RecursionError as error:
        raise UnusableError(f", line {number}, is nested too deeply", "give flat objects") from error


def _list_elements(path: Path) -> Iterator[object]:
    """Parse the elements of a top-level list in turn. Raises ValueError for anything else."""
    with open_text(path) as file:
        scanner = _Scanner(file.read)
        if scanner.take() != "[":
            raise ValueError("no list")
        sign, number = scanner.sign(), 0
        while sign != "]":
            number += 1
            value, text = scanner.value()
            yield _check_surrogates(value, text, f"row {number}")
            sign = scanner.take()
            if sign not in {",", "]"}:
                raise ValueError("no delimiter")
        if number == 0:
            scanner.take()
        if scanner.sign():
            raise ValueError("text behind the list")


class _Scanner:
    """Text that is read as far as parsing has come."""

    def __init__(self, read: Callable[[int], str]) -> None:
        self._read = read
        self._text = ""
        self.at = 0
        self._decode = json.JSONDecoder().raw_decode

    def sign(self) -> str:
        """Return the next character that is no white space, and stand before it; "" at the end."""
        while True:
            while self.at < len(self._text):
                if self._text[self.at] not in " \t\n\r":
                    return self._text[self.at]
                self.at += 1
            if not self._grow():
                return ""

    def take(self) -> str:
        """Return the next character that is no white space, and stand behind it."""
        sign = self.sign()
        self.at += 1
        return sign

    def value(self) -> tuple[object, str]:
        """Parse the next value, and return it with its text."""
        self.sign()
        while True:
            try:
                value, end = self._decode(self._text, self.at)
            except json.JSONDecodeError:
                if not self._grow():
                    raise
                continue
            start, self.at = self.at, end
            return value, self._text[start:end]

    def _grow(self) -> bool:
        kept = self._text[self.at :]
        more = self._read(max(_CHUNK, len(kept)))
        self._text, self.at = kept + more, 0
        return bool(more)


def _read_whole(path: Path) -> Rows:
    text = read_text(path)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text[error.pos :].startswith("{"):  # JSON Lines with another suffix
            return read_jsonl(path)
        raise _not_json(error, line=error.lineno, at_end=error.pos >= len(text.rstrip())) from error
    except RecursionError as error:
        raise UnusableError(" is nested too deeply", "give a list of flat objects") from error
    _check_surrogates(content, text, "a row")
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list)]
        content = lists[0] if len(lists) == 1 else content
    if not isinstance(content, list):
        problem = f" holds a JSON {_json_type(content)} that has no list of rows"
        raise UnusableError(problem, "give a list of objects, or an object with exactly one such list")
    rows = list(_checked(content, "row"))
    made = rows_of_list(str(path), rows)
    _check_columns(made.columns, len(rows))
    return made


def _check_surrogates(value: object, text: str, where: str) -> object:
    """Refuse half a character, which only an escape can write and no tokenizer takes."""
    if "\\u" in text and "\\ud" in text.lower():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            column = f", column {_broken_column(value)!r}" if isinstance(value, dict) else ""
            problem = f": {where}{column} holds half a character (a lone surrogate)"
            raise UnusableError(problem, "remove that escape sequence from the row") from error
    return value


def _broken_column(row: Mapping[str, object]) -> str:
    for column, cell in row.items():
        try:
            json.dumps({column: cell}, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return column
    raise AssertionError("no cell is broken")


def _not_json(error: json.JSONDecodeError, *, line: int, at_end: bool) -> UnusableError:
    # an unterminated string is reported where it began, perhaps long before the end of a truncated file
    if at_end or error.msg.startswith("Unterminated string"):
        problem, remedy = "ends in the middle of a value", "the file looks truncated: copy or download it again"
    else:
        problem, remedy = "is not JSON", "correct the file there; no comma ends the last value, or a line of JSON Lines"
    return UnusableError(f" {problem}: {error.msg} at line {line}, column {error.colno}", remedy)


def _json_type(value: object) -> str:
    names = {dict: "object", list: "list", str: "string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "number")

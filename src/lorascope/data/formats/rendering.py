"""Row rendering: one row as text with the span of its completion, and prompt templates over columns."""

import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from lorascope.errors import InputError


class Drop(StrEnum):
    """Why a row is not used: the code of the note, with ``split``, ``rows`` and ``count``."""

    BLANK = "rows.dropped_blank"
    """It holds no text."""
    NO_ANSWER = "rows.dropped_no_answer"
    """It is a conversation without a turn of the assistant."""
    EMPTY_ANSWER = "rows.dropped_empty_answer"
    """The completion, or all that the assistant says, is blank."""
    SWITCHED_OFF = "rows.dropped_switched_off"
    """The row says that none of its answers is trained."""
    UNWRITTEN_CALL = "rows.dropped_unwritten_call"
    """The chat template leaves out a tool call of an answer, or some of its arguments."""
    NO_TARGET = "rows.dropped_no_target"
    """No token of it is a target, at any length."""

    @property
    def because(self) -> str:
        """Words for an error message, behind the number of rows."""
        return _BECAUSE[self]


_BECAUSE = {
    Drop.BLANK: "without text",
    Drop.NO_ANSWER: "without a turn of the assistant",
    Drop.EMPTY_ANSWER: "with a blank answer",
    Drop.SWITCHED_OFF: "whose answers are all marked as not trained",
    Drop.UNWRITTEN_CALL: "with a tool call that the chat template does not write, or not with all of its arguments",
    Drop.NO_TARGET: "without a token to take the loss on",
}


class Remark(StrEnum):
    """Note about a row that is used: its code, with ``split``, ``rows`` and ``count``."""

    ANSWER_SHORTENED = "rows.answer_shortened"
    """The chat template leaves out some of an answer, such as its thinking."""
    USER_SWITCHED_ON = "rows.user_switched_on"
    """The row asks to train a turn of the user."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderedRow:
    """One row as text."""

    text: str
    prompt: str
    """The prompt, or the whole text of rows without one: never in both training and held-out rows."""
    spans: tuple[tuple[int, int], ...]
    """Half-open character ranges of the completion, in order, not overlapping."""
    remarks: frozenset[Remark] = frozenset()


def join_pair(prompt: str, completion: str) -> RenderedRow | Drop:
    """Concatenate prompt and completion."""
    if not completion.strip():
        return Drop.EMPTY_ANSWER if prompt.strip() else Drop.BLANK
    text = prompt + completion
    # stripped, so that prompts that differ in white space cannot be both trained on and held out
    return RenderedRow(text=text, prompt=prompt.strip() or text, spans=((len(prompt), len(text)),))


def cell_text(row: Mapping[str, object], column: str, number: int) -> str:
    """Return a cell as text; None becomes empty text, numbers are written out.

    Raises:
        InputError: the cell is nested.
    """
    value = row[column]
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)  # as data files write it: true, 0.5, NaN
    raise InputError(
        f"row {number}, column {column!r} holds a {type(value).__name__} where text is needed",
        remedy="give the column text in every row, or choose another column or format",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Template:
    """A parsed template: pieces of literal text, each followed by a column or by nothing."""

    pieces: tuple[tuple[str, str | None], ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that it reads, in order."""
        return tuple(dict.fromkeys(column for _, column in self.pieces if column is not None))

    def fill(self, row: Mapping[str, object], number: int) -> str:
        """Fill in one row; ``number`` counts rows from 1, for messages."""
        return "".join(
            literal + (cell_text(row, column, number) if column is not None else "") for literal, column in self.pieces
        )


def compile_template(source: str, *, field: str, columns: Sequence[str]) -> Template:
    """Parse a template over these columns.

    Raises:
        InputError: braces hold anything but a bare column name.
    """
    try:
        parsed = list(string.Formatter().parse(source))
    except ValueError as error:
        raise InputError(
            f"{field} {source!r} is not a template: {error}", remedy="write braces that are text twice: {{ and }}"
        ) from error
    for _, name, format_spec, conversion in parsed:
        if name is not None:
            _check_name(name, bare=not format_spec and conversion is None, source=source, field=field, columns=columns)
    return Template(pieces=tuple((literal, name) for literal, name, _, _ in parsed))


def _check_name(name: str, *, bare: bool, source: str, field: str, columns: Sequence[str]) -> None:
    known = f"the columns are: {', '.join(columns)}"
    if name not in columns and any(sign in name for sign in ".["):
        raise InputError(
            f"{field} {source!r} reaches into {name!r}", remedy=f"only column names may stand in braces; {known}"
        )
    if not bare:
        raise InputError(
            f"{field} {source!r} formats {name!r} with ':' or '!'",
            remedy=f"only column names may stand in braces, and braces that are text are written twice; {known}",
        )
    if name not in columns:
        raise InputError(
            f"{field} {source!r} names the column {name!r}, which the rows do not have",
            remedy=f"{known}; braces that are text are written twice",
        )

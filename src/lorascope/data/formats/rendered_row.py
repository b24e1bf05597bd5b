"""One row as text, with the place of its completion."""

from collections.abc import Mapping
from dataclasses import dataclass

from lorascope.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    """One row's text."""

    text: str
    prompt: str
    """What must not be in both halves: the prompt, or the whole text where there is none."""
    spans: tuple[tuple[int, int], ...]
    """Characters of the completion, from the first to behind the last; in order, not overlapping."""


def join_pair(prompt: str, completion: str) -> Rendered | None:
    """Join prompt and completion as they are; None where the completion has no text."""
    if not completion.strip():
        return None
    text = prompt + completion
    # Blank ends are ignored so that two spellings of one prompt cannot come to lie in both halves.
    return Rendered(text=text, prompt=prompt.strip() or text, spans=((len(prompt), len(text)),))


def cell_text(row: Mapping[str, object], column: str, number: int) -> str:
    """Read a cell as text: nothing is empty text, numbers are written out, anything nested is an InputError."""
    value = row[column]
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return str(value)
    raise InputError(
        f"row {number}, column {column!r} holds a {type(value).__name__} where text is needed",
        remedy="give the column text in every row, or choose another column or format",
    )

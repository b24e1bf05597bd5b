"""The user's own templates: text with column names in braces, and nothing more."""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lorascope.data.formats.rendered_row import cell_text
from lorascope.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Template:
    """A checked template: literal text, each piece followed by a column or by nothing."""

    pieces: tuple[tuple[str, str | None], ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Name the columns it reads, in order."""
        return tuple(dict.fromkeys(column for _, column in self.pieces if column is not None))

    def fill(self, row: Mapping[str, object], number: int) -> str:
        """Write one row (its number counts from 1) into the template."""
        return "".join(
            literal + (cell_text(row, column, number) if column is not None else "") for literal, column in self.pieces
        )


def compile_template(source: str, *, field: str, columns: Sequence[str]) -> Template:
    """Check a template against the columns; only a bare column name may stand in braces."""
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
    there = f"the columns there are: {', '.join(columns)}"
    if name not in columns and any(sign in name for sign in ".["):
        raise InputError(
            f"{field} {source!r} reaches into {name!r}", remedy=f"only column names may stand in braces; {there}"
        )
    if not bare:
        raise InputError(
            f"{field} {source!r} formats {name!r} with ':' or '!'",
            remedy=f"only column names may stand in braces, and braces that are text are written twice; {there}",
        )
    if name not in columns:
        raise InputError(
            f"{field} {source!r} names the column {name!r}, which the rows do not have",
            remedy=f"{there}; braces that are text are written twice",
        )

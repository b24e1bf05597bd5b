"""A table: headings, cells as text, and the rank of each row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from lorascope.analysis.section import Interval
from lorascope.text.language import tr

Row = TypeVar("Row")
Value = TypeVar("Value")
NONE = "–"
"""Cell without a value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A header and rows of equal length; the first cell of a row names it."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    ranks: tuple[int | None, ...]
    """Rank of each row, for its colour; None for a row that belongs to no rank."""
    note: str = ""
    hints: tuple[str, ...] = ()
    """More about each row, for a page to show on request; empty where there is nothing."""
    style: Literal["", "ranks", "overview", "trials"] = ""
    """How a page sets it: ``ranks`` puts intervals on their own line, ``overview`` draws them, ``trials`` is
    sorted and filtered."""


def make_table(
    rows: Sequence[Row], ranks: Sequence[int | None], *columns: tuple[str, Callable[[Row], str]], note: str = ""
) -> Table:
    """Write a table.

    Args:
        rows: what the rows are about.
        ranks: rank of each row.
        columns: heading, and the cell of a row.
        note: explains the table.
    """
    return Table(
        header=tuple(heading for heading, _ in columns),
        rows=tuple(tuple(cell(row) for _, cell in columns) for row in rows),
        ranks=tuple(ranks),
        note=note,
    )


def drop_empty(table: Table) -> Table:
    """Leave out the columns behind the second that have no value in any row."""
    kept = [
        column
        for column in range(len(table.header))
        if column <= 1 or any(row[column] not in (NONE, "") for row in table.rows)
    ]
    return replace(
        table,
        header=tuple(table.header[column] for column in kept),
        rows=tuple(tuple(row[column] for column in kept) for row in table.rows),
    )


def optional(value: Value | None, write: Callable[[Value], str]) -> str:
    """Write a value that may be missing."""
    return NONE if value is None else write(value)


def loss_cell(value: float | None) -> str:
    """Write a loss or a difference of losses."""
    return optional(value, "{:z.4f}".format)


def interval_cell(value: float | None, interval: Interval | None, write: Callable[[float], str] = loss_cell) -> str:
    """Write a number and its interval, or the number alone."""
    if value is None or interval is None:
        return optional(value, write)
    return tr("{value} ({low} to {high})", value=write(value), low=write(interval[0]), high=write(interval[1]))

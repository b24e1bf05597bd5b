"""Terminal tables that drop their least important columns on narrow terminals."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

_GAP = 2
"""Characters between columns: a cell's padding and the box's divider."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A table column."""

    heading: str
    cells: Sequence[str]
    priority: int = 0
    """0 is always shown; the column with the highest number is dropped first."""
    left: bool = False
    """Align left, for words."""


def fit_columns(columns: Sequence[Column], width: int) -> list[Column]:
    """Drop columns without any text, and then further ones until the rest fits in ``width`` characters."""
    kept = [column for column in columns if any(column.cells)]
    while sum(_width(column) + _GAP for column in kept) - _GAP > width:
        last = max(kept, key=lambda column: column.priority)
        if last.priority == 0:
            break
        kept.remove(last)
    return kept


def make_table(columns: Sequence[Column], width: int, *, bold: int | None = None) -> Table:
    """Lay out the columns that fit, without breaking cells into lines, and set one row in bold."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    kept = fit_columns(columns, width)
    for column in kept:
        table.add_column(column.heading, justify="left" if column.left else "right", no_wrap=True)
    for place, cells in enumerate(zip(*(column.cells for column in kept), strict=True)):
        table.add_row(*(Text(cell) for cell in cells), style="bold" if place == bold else None)
    return table


def _width(column: Column) -> int:
    return max(len(text) for text in (column.heading, *column.cells))

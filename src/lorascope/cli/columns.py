"""Tables that give up their least needed columns where the terminal is narrow."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

_GAP = 2
"""Characters between columns: a cell's padding and the box's divider."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A heading, its cells, and when to give it up."""

    heading: str
    cells: Sequence[str]
    rank: int = 0
    """Columns with the highest number go first; 0 is never given up."""
    left: bool = False
    """Align to the left: words, not numbers."""


def fit(columns: Sequence[Column], width: int) -> list[Column]:
    """Leave out columns until the rest fits in ``width`` characters, and those whose cells are all empty."""
    kept = [column for column in columns if any(column.cells)]
    while sum(_width(column) + _GAP for column in kept) - _GAP > width:
        spare = max(kept, key=lambda column: column.rank, default=None)
        if spare is None or spare.rank == 0:
            break
        kept.remove(spare)
    return kept


def table(columns: Sequence[Column], width: int) -> Table:
    """Draw the columns that fit; a cell is never broken into two lines."""
    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    kept = fit(columns, width)
    for column in kept:
        drawn.add_column(column.heading, justify="left" if column.left else "right", no_wrap=True)
    for cells in zip(*(column.cells for column in kept), strict=True):
        drawn.add_row(*(Text(cell) for cell in cells))
    return drawn


def _width(column: Column) -> int:
    return max(len(text) for text in (column.heading, *column.cells))

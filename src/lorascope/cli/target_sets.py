"""Sets of target modules for the terminal: the set to use, and the sets beside each other and compared."""

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from lorascope.analysis.summary import TargetSetsSection
from lorascope.cli.columns import Column, make_table
from lorascope.text.say import say
from lorascope.text.tables.table import Table
from lorascope.text.tables.target_sets import comparison_lines, sets_table


def set_lines(sets: TargetSetsSection, width: int) -> Iterator[RenderableType]:
    """Yield the set to use, a table of the sets, and a line for each comparison."""
    yield Text()
    yield Text(say(sets.reason), style="bold")
    yield make_table(_columns(sets_table(sets)), width)
    for line in comparison_lines(sets):
        yield Text(line, style="dim")


def _columns(table: Table) -> list[Column]:
    columns = zip(table.header, zip(*table.rows, strict=True), strict=True)
    return [
        Column(heading=heading, cells=list(cells), left=place == 0) for place, (heading, cells) in enumerate(columns)
    ]

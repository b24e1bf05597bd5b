"""What was measured of each rank's memory, as the strings a page shows."""

from lorascope.analysis.summary import StudySummary
from lorascope.language import tr
from lorascope.report.view import Table, row_colors


def memory_table(summary: StudySummary) -> Table:
    """Show the readings of each rank's memory; no rows where none were taken."""
    known = [(part.rank, part.memory) for part in summary.ranks if part.memory is not None]
    return Table(
        header=(
            tr("rank"),
            tr("mean (MB)"),
            tr("standard deviation (MB)"),
            tr("lowest (MB)"),
            tr("highest (MB)"),
        ),
        rows=tuple(
            (str(rank), *(f"{value:,.1f}" for value in (memory.mean, memory.std, memory.min, memory.max)))
            for rank, memory in known
        ),
        colors=row_colors(summary, [rank for rank, _ in known]),
    )

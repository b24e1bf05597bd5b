"""What was measured of each rank's costs, as the strings a page shows."""

from lorascope.analysis.cost.schema import CostsSection, GrowthSection, JointSection
from lorascope.analysis.summary import StudySummary
from lorascope.report.view import Table, row_colors
from lorascope.text.language import tr
from lorascope.text.numbers import format_seconds
from lorascope.units import format_bytes


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


def cost_points(costs: CostsSection | None) -> tuple[str, ...]:
    """Say what the measurements show: steadiness, bottlenecks, growth with the rank, the joint run, bandwidth."""
    if costs is None:
        return ()
    held = next((part for part in costs.growth if part.phase == "held"), None)
    points = [
        *(costs.readings.texts if costs.readings else ()),
        _growth(held) if held else "",
        _joint(costs.joint) if costs.joint else "",
        costs.process.traffic_text if costs.process else "",
    ]
    return tuple(point for point in points if point)


def _growth(part: GrowthSection) -> str:
    return tr(
        "Memory held after a step grows by {measured} for each rank more; adapter, gradient and optimizer state are "
        "{counted} of it by their sizes.",
        measured=format_bytes(part.bytes_per_rank),
        counted=format_bytes(part.counted_bytes_per_rank),
    )


def _joint(part: JointSection) -> str:
    if part.alone_seconds is None:
        return ""
    return tr(
        "All trials together trained for {joint}; by the measurements of each alone, one after the other would have "
        "taken {alone}.",
        joint=format_seconds(part.seconds),
        alone=format_seconds(part.alone_seconds),
    )

"""Runtime of each rank alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lorascope.analysis import StudyData, StudySummary
from lorascope.charts.chart import Chart
from lorascope.charts.vega import Spec, color_of_rank, finish, rank_axis, text_above, time_unit
from lorascope.text.language import tr
from lorascope.text.metrics import metric_title
from lorascope.text.numbers import format_seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """Time of all training steps of one rank alone."""

    rank: int
    seconds: float


def charts(study: StudyData, summary: StudySummary) -> Iterator[Chart]:
    """Make the chart where steps were measured."""
    runtimes = runtime_by_rank(summary)
    if runtimes:
        caption = tr("All training steps of one rank alone: their number times the median of the measured steps.")
        spec = runtime_spec(runtimes, study.ranks)
        yield Chart(name="runtime", section="costs", title=tr("Runtime"), caption=caption, spec=spec)


def runtime_by_rank(summary: StudySummary) -> tuple[Runtime, ...]:
    """Take the ranks whose time is known."""
    known = [(part.rank, part.runtime_seconds) for part in summary.ranks]
    return tuple(Runtime(rank=rank, seconds=seconds) for rank, seconds in known if seconds is not None)


def runtime_spec(points: Sequence[Runtime], ranks: Sequence[int]) -> Spec:
    """Draw a bar from 0 for each rank, with its time above."""
    divisor, unit = time_unit(max(point.seconds for point in points))
    rows = [
        {"rank": str(point.rank), "value": point.seconds / divisor, "words": format_seconds(point.seconds)}
        for point in points
    ]
    x = rank_axis(ranks)
    y = {"field": "value", "type": "quantitative", "title": metric_title("runtime_seconds", unit=unit)}
    tips = [{"field": "rank", "title": metric_title("rank")}, {"field": "words", "title": y["title"]}]
    color = color_of_rank(ranks, legend=False)
    layers: list[Spec] = [
        {"data": {"values": rows}, "mark": {"type": "bar", "width": {"band": 0.6}},
         "encoding": {"x": x, "y": y, "color": color, "tooltip": tips}},
        text_above(rows, x, y),
    ]  # fmt: skip
    return finish(layers)

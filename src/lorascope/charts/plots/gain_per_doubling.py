"""Gain in held-out loss for each doubling of the rank."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lorascope.analysis import StudyData, StudySummary
from lorascope.charts.chart import Chart
from lorascope.charts.vega import Spec, color_of_rank, finish, interval_layers
from lorascope.text.language import tr
from lorascope.text.metrics import metric_title


@dataclass(frozen=True, kw_only=True, slots=True)
class GainPoint:
    """Gain of one rank's step to the next larger one for each doubling, nats a token."""

    smaller: int
    larger: int
    value: float
    low: float
    high: float


def charts(study: StudyData, summary: StudySummary) -> Iterator[Chart]:
    """Make the chart where neighbouring ranks have a held-out loss."""
    points = gain_per_doubling(summary)
    if points:
        yield Chart(
            name="gain_per_doubling",
            section="larger_ranks",
            title=tr("Gain for each doubling of the rank"),
            caption=tr("What each step to the next larger rank gains for every doubling on its way; 95% intervals."),
            spec=gain_spec(points, summary.study.tolerance, study.ranks),
        )


def gain_per_doubling(summary: StudySummary) -> tuple[GainPoint, ...]:
    """Take every step to a larger rank, ascending, with its 95% interval divided by the doublings."""
    points = []
    for step in summary.readings.doublings:
        doublings = math.log2(step.larger / step.smaller)
        low, high = (end / doublings for end in step.gain_ci95)
        value = step.gain_per_doubling
        points.append(GainPoint(smaller=step.smaller, larger=step.larger, value=value, low=low, high=high))
    return tuple(points)


def gain_spec(points: Sequence[GainPoint], tolerance: float, ranks: Sequence[int]) -> Spec:
    """Draw each step's gain in the colour of its larger rank, the tolerance and 0 as dashed lines."""
    names = [f"{point.smaller} → {point.larger}" for point in points]
    reach = max(tolerance, *(point.high for point in points)) - min(0.0, *(point.low for point in points))
    rows = [
        {"step": name, "rank": str(point.larger), "value": point.value, "low": point.low, "high": point.high,
         "end": _free_end(point, reach, tolerance)}
        for name, point in zip(names, points, strict=True)
    ]  # fmt: skip
    x = {"field": "step", "type": "nominal", "title": tr("to the next larger rank"), "sort": names,
         "axis": {"labelAngle": 0}}  # fmt: skip
    near = tolerance < reach / 12  # then the two labels would lie on each other
    lines = [(0.0, "" if near else tr("nothing")), (tolerance, tr("tolerance"))]
    color = color_of_rank(ranks, legend=False)
    return finish(interval_layers(rows, x, metric_title("gain_per_doubling"), color, lines=lines))


def _free_end(point: GainPoint, reach: float, tolerance: float) -> str:
    """Choose the end of an interval where no line crosses the label, an eighth of the chart high."""
    height = reach / 8
    above = any(point.high <= line <= point.high + height for line in (0.0, tolerance))
    below = any(point.low - height <= line <= point.low for line in (0.0, tolerance))
    return "low" if above and not below else "high"

"""Predicted and measured time of a step, and peak memory, by rank."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from lorascope.analysis import StudyData, StudySummary
from lorascope.charts.chart import Chart
from lorascope.charts.vega import INK, Spec, color_of_rank, finish, rank_axis
from lorascope.text.language import tr
from lorascope.text.metrics import metric_title
from lorascope.units import MEGABYTE

Cost = Literal["step_seconds", "peak_memory_bytes"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """One rank's cost."""

    rank: int
    predicted: float
    measured: float


def charts(study: StudyData, summary: StudySummary) -> Iterator[Chart]:
    """Make both charts where ranks have both numbers."""
    caption = tr("Circle: measured. Diamond: predicted before anything was measured.")
    kinds: tuple[tuple[Cost, str, str, str | None], ...] = (
        ("step_seconds", "predicted_step", tr("Time of a step, predicted and measured"), None),
        ("peak_memory_bytes", "predicted_memory", tr("Peak memory, predicted and measured"), "MB"),
    )
    for cost, name, title, unit in kinds:
        points = predictions(summary, cost)
        if points:
            spec = prediction_spec(points, metric_title(cost, unit=unit), study.ranks)
            yield Chart(name=name, section="predictions", title=title, caption=caption, spec=spec)


def predictions(summary: StudySummary, cost: Cost) -> tuple[Prediction, ...]:
    """Take the ranks that have both numbers: seconds, or MB."""
    found = []
    for part in summary.predicted.ranks if summary.predicted else ():
        value = getattr(part, cost)
        if part.rank is not None and value.measured is not None:
            scale = MEGABYTE if cost == "peak_memory_bytes" else 1
            found.append(Prediction(rank=part.rank, predicted=value.predicted / scale, measured=value.measured / scale))
    return tuple(found)


def prediction_spec(points: Sequence[Prediction], y_title: str, ranks: Sequence[int]) -> Spec:
    """Draw measurements as filled points and predictions as hollow diamonds, from 0."""
    rows = [
        {"rank": str(point.rank), "kind": kind, "value": value}
        for point in points
        for kind, value in ((tr("measured"), point.measured), (tr("predicted"), point.predicted))
    ]
    kinds = [tr("measured"), tr("predicted")]
    x = rank_axis(ranks)
    y = {"field": "value", "type": "quantitative", "title": y_title, "scale": {"zero": True}}
    legend = {"title": None, "orient": "top", "symbolStrokeColor": INK, "symbolFillColor": "transparent"}
    shape = {"field": "kind", "type": "nominal", "sort": kinds, "legend": legend,
             "scale": {"domain": kinds, "range": ["circle", "diamond"]}}  # fmt: skip
    tips = [
        {"field": "rank", "title": x["title"]},
        {"field": "kind", "title": tr("number")},
        {"field": "value", "type": "quantitative", "title": y_title, "format": ",.4~g"},
    ]
    color = color_of_rank(ranks, legend=False)
    layers: list[Spec] = [
        {"data": {"values": [row for row in rows if row["kind"] == kind]},
         "mark": {"type": "point", "size": size, "filled": filled, "opacity": 1, "strokeWidth": 2},
         "encoding": {"x": x, "y": y, "color": color, "shape": shape, "tooltip": tips}}
        for kind, size, filled in ((kinds[0], 70, True), (kinds[1], 190, False))
    ]  # fmt: skip
    return finish(layers)

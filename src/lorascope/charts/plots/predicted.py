"""Predicted and measured time of a step, and peak memory, by rank."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from lorascope.analysis import StudyData, StudySummary
from lorascope.charts.chart import Chart
from lorascope.charts.vega import INK, Spec, color_of_rank, finish, rank_axis
from lorascope.text.language import tr
from lorascope.text.metrics import metric_title
from lorascope.units import to_megabytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """One rank's cost."""

    rank: int
    predicted: float
    measured: float


def charts(study: StudyData, summary: StudySummary) -> Iterator[Chart]:
    """Make both charts where ranks have both numbers."""
    caption = tr("Circle: measured. Diamond: predicted before anything was measured.")
    steps = predictions(summary, "step_seconds")
    if steps:
        yield Chart(
            name="predicted_step",
            section="predictions",
            title=tr("Time of a step, predicted and measured"),
            caption=caption,
            spec=prediction_spec(steps, metric_title("step_seconds"), study.ranks),
        )
    memory = predictions(summary, "peak_memory_bytes")
    if memory:
        yield Chart(
            name="predicted_memory",
            section="predictions",
            title=tr("Peak memory, predicted and measured"),
            caption=caption,
            spec=prediction_spec(memory, metric_title("peak_memory_bytes", unit="MB"), study.ranks),
        )


def predictions(summary: StudySummary, what: Literal["step_seconds", "peak_memory_bytes"]) -> tuple[Prediction, ...]:
    """Take the ranks that have both numbers: seconds, or MB."""
    found = []
    for cost in summary.predicted.ranks if summary.predicted else ():
        value = getattr(cost, what)
        if cost.rank is not None and value.measured is not None:
            pair = (value.predicted, value.measured)
            predicted, measured = map(to_megabytes, pair) if what == "peak_memory_bytes" else pair
            found.append(Prediction(rank=cost.rank, predicted=predicted, measured=measured))
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

"""What was predicted of each rank's cost beside what then was measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lorascope.analysis import StudySummary
from lorascope.charts.vega import INK, Spec, color_of_rank, finish, rank_axis
from lorascope.text.language import tr
from lorascope.units import to_megabytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """One rank's cost."""

    rank: int
    predicted: float
    measured: float


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
    """Draw what was measured as a filled point, and the prediction as a hollow diamond, from 0."""
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

"""From a chart's data to its Vega-Lite specification."""

from collections.abc import Sequence
from typing import Any, Literal

import altair as alt

from lorascope.charts.colors import rank_colors
from lorascope.charts.data import LossByRank, LossBySteps, RankPoint
from lorascope.charts.fonts import font_family
from lorascope.metrics import METRICS

WIDTH = 460
HEIGHT = 230
INK = "#5b6270"
"""Axes and text on white; a page puts its own text colour in its place."""
GRID = "#80879433"
"""Fine lines that are seen on white and on the dark page."""
RAW_OPACITY = 0.25
LABEL_ROOM = 26
"""Pixels kept free beyond the ends of intervals."""

Spec = dict[str, Any]


def loss_by_step_spec(data: LossBySteps, ranks: Sequence[int]) -> Spec:
    """Draw a curve for each rank, raw values faint behind smoothed ones, and a cross where a trial ended early."""
    smoothed = any(curve.losses != curve.smoothed for curve in data.curves)
    rows = [
        {"rank": str(curve.rank), "step": step, "loss": loss, "smoothed": smooth}
        for curve in data.curves
        for step, loss, smooth in zip(curve.steps, curve.losses, curve.smoothed, strict=True)
    ]
    x = alt.X("step:Q", title=METRICS["step"].title, axis=alt.Axis(tickMinStep=1, format="d"))
    y = alt.Y("smoothed:Q", title=METRICS[data.metric].title, scale=alt.Scale(zero=False))
    base = alt.Chart(inline(rows)).encode(x=x, color=color_of_rank(ranks))
    layers = [base.mark_line(strokeWidth=1, opacity=RAW_OPACITY).encode(y="loss:Q")] if smoothed else []
    layers.append(base.mark_line(strokeWidth=2, point=not smoothed).encode(y=y))
    ended = [
        {"rank": str(curve.rank), "step": curve.steps[-1], "smoothed": curve.smoothed[-1]}
        for curve in data.curves
        if curve.ended_early
    ]
    if ended:
        cross = alt.Chart(inline(ended)).mark_point(shape="cross", angle=45, size=140, filled=True, opacity=1)
        layers.append(cross.encode(x="step:Q", y="smoothed:Q", color=color_of_rank(ranks)))
    return finish(alt.LayerChart(layer=layers))


def loss_by_rank_spec(data: LossByRank, ranks: Sequence[int]) -> Spec:
    """Draw a point and its interval for each rank, and the tolerance as a dashed line where there is one."""
    names = [str(rank) for rank in sorted(ranks)]
    scale = alt.Scale(domain=names)
    x = alt.X("rank:N", title=METRICS["rank"].title, sort=names, axis=alt.Axis(labelAngle=0), scale=scale)
    y = alt.Y("low:Q", title=METRICS[data.metric].title, scale=alt.Scale(zero=False, padding=LABEL_ROOM))
    base = alt.Chart(inline([_point_row(point) for point in data.points])).encode(
        x=x, color=color_of_rank(ranks, legend=False)
    )
    layers = [
        base.mark_rule(strokeWidth=2).encode(y=y, y2="high:Q"),
        base.mark_point(filled=True, size=50, opacity=1).encode(y="value:Q"),
    ]
    # A value stands on its interval's side of the tolerance line, so that the line never runs through it.
    for end, dy in (("low", 14), ("high", -12)):
        rows = [_point_row(point) for point in data.points if _label_end(point, data.tolerance) == end]
        text = alt.Text("value:Q", format=".4f")
        labels = alt.Chart(inline(rows)).mark_text(dy=dy, color=INK, fontSize=12)
        layers.append(labels.encode(x=x, y=f"{end}:Q", text=text))
    if data.tolerance is not None:
        line = alt.Chart(inline([{"value": data.tolerance, "text": "tolerance"}]))
        layers.append(line.mark_rule(strokeDash=[5, 4], color=INK).encode(y="value:Q"))
        # Behind the right edge, where no rank's label can be.
        aside = line.mark_text(align="left", color=INK, fontSize=11)
        layers.append(aside.encode(x=alt.value(WIDTH + 5), y="value:Q", text="text:N"))
    return finish(alt.LayerChart(layer=layers))


def _point_row(point: RankPoint) -> dict[str, Any]:
    return {"rank": str(point.rank), "value": point.value, "low": point.low, "high": point.high}


def _label_end(point: RankPoint, tolerance: float | None) -> Literal["low", "high"]:
    return "low" if tolerance is not None and point.high <= tolerance else "high"


def inline(rows: list[dict[str, Any]]) -> alt.Data:
    """Put rows into the specification itself."""
    return alt.Data(values=rows)  # type: ignore[no-untyped-call]  # altair's generated classes have no types


def color_of_rank(ranks: Sequence[int], *, legend: bool = True) -> alt.Color:
    """Colour by the field ``rank``, the same colour for a rank in every chart."""
    colors = rank_colors(ranks)
    names = [str(rank) for rank in colors]
    scale = alt.Scale(domain=names, range=list(colors.values()))
    shown = alt.Legend(title="rank", orient="top", symbolType="stroke", symbolStrokeWidth=3, symbolOpacity=1)
    return alt.Color("rank:N", scale=scale, legend=shown if legend else None, sort=names)


def finish(chart: alt.LayerChart) -> Spec:
    """Give a chart the size and the looks that all have."""
    finished = (
        chart.properties(width=WIDTH, height=HEIGHT)
        .configure(background="transparent", font=font_family())
        .configure_axis(
            labelColor=INK,
            titleColor=INK,
            labelFontSize=12,
            titleFontSize=12,
            titleFontWeight="normal",
            gridColor=GRID,
            domainColor=INK,
            tickColor=INK,
        )
        .configure_legend(labelColor=INK, titleColor=INK, labelFontSize=12, titleFontSize=12, titleFontWeight="normal")
        .configure_view(stroke=None)
    )
    spec: Spec = finished.to_dict()
    return spec

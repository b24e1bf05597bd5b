"""From curves and losses of ranks to their Vega-Lite specifications."""

from collections.abc import Sequence
from typing import Any, Literal

from lorascope.charts.data import Curve, LossByRank, LossBySteps, RankPoint
from lorascope.charts.label_layout import spread
from lorascope.charts.vega import (
    HEIGHT,
    LINE_HEIGHT,
    RAW_OPACITY,
    WHOLE_NUMBERS,
    WIDTH,
    Rows,
    Spec,
    chosen,
    color_of_rank,
    cross,
    dash_of_rank,
    finish,
    interval_layers,
    legend_choice,
    rank_axis,
)
from lorascope.text.language import tr
from lorascope.text.metrics import metric_title

Along = Literal["step", "tokens", "seconds"]
MOST_POINTED = 120
"""Points of a curve that answer the pointer."""


def loss_by_step_spec(data: LossBySteps, ranks: Sequence[int], *, along: Along = "step", hover: bool = False) -> Spec:
    """Draw a curve for each rank, raw values faint behind smoothed ones, and a cross where a trial ended early.

    ``along`` chooses the horizontal axis; tokens and seconds must be known of every curve. ``hover`` adds invisible
    points that answer the pointer: for a chart in a browser only. The parameters ``raw`` and ``others`` show the single
    steps, and the trials that are not a rank's best.
    """
    low, high, clip = _reach(data)
    x: Spec = {"type": "quantitative", "axis": {"tickCount": 8} | (WHOLE_NUMBERS if along == "step" else {})}
    x |= next(choice for choice in _x_choices(data) if choice["field"] == along)
    y: Spec = {"field": "smoothed", "type": "quantitative", "title": metric_title(data.metric)}
    y["scale"] = {"zero": False, "domain": [low, high]}
    line: Spec = {"type": "line", "clip": clip}
    layers: list[Spec] = []
    if data.smoothed:
        fields = {"x": x, "y": {**y, "field": "loss"}, "opacity": chosen(RAW_OPACITY)}
        layers.append({"transform": [{"filter": "raw"}], "mark": line | {"strokeWidth": 1}, "encoding": fields})
    if data.others:
        rows = [row | {"trial": curve.trial_id} for curve in data.others for row in _curve_rows(curve)]
        fields = {"x": x, "y": y, "detail": {"field": "trial"}, "opacity": chosen(0.45)}
        faint: Spec = {"data": {"values": rows}, "transform": [{"filter": "others"}], "encoding": fields}
        layers.append(faint | {"mark": line | {"strokeWidth": 1, "clip": True}})
    bold = line | {"strokeWidth": 2} | ({} if data.smoothed else {"point": {"size": 30}})
    fields = {"x": x, "y": y, "strokeDash": dash_of_rank(ranks), "opacity": chosen(1.0)}
    layers.append({"name": "ranks", "params": [legend_choice()], "mark": bold, "encoding": fields})
    layers += _marked(data.curves, x, y)
    if hover:
        layers.append(_pointed(data, x, y))
    for layer in layers:
        layer["encoding"]["color"] = color_of_rank(ranks)
    spec = finish(layers, params=[{"name": "raw", "value": True}, {"name": "others", "value": False}])
    spec["data"] = {"values": [row for curve in data.curves for row in _curve_rows(curve)]}
    spec["usermeta"] = {"x": _x_choices(data), "raw": data.smoothed, "others": bool(data.others)}
    return spec


def loss_by_rank_spec(data: LossByRank, ranks: Sequence[int]) -> Spec:
    """Draw a point and its interval for each rank, and the tolerance as a dashed line where there is one."""
    x = rank_axis(ranks)
    rows = [_point_row(point) | {"end": _label_end(point, data.tolerance)} for point in data.points]
    lines = [] if data.tolerance is None else [(data.tolerance, tr("tolerance"))]
    layers = interval_layers(rows, x, metric_title(data.metric), color_of_rank(ranks, legend=False), lines=lines)
    return finish(layers)


def _curve_rows(curve: Curve) -> Rows:
    columns: dict[str, Sequence[float]] = {"step": curve.steps, "loss": curve.losses, "smoothed": curve.smoothed}
    if curve.tokens:
        columns["tokens"] = curve.tokens
    if curve.seconds:
        columns["seconds"] = curve.seconds
    numbers = zip(*(map(_short, column) for column in columns.values()), strict=True)
    return [{"rank": str(curve.rank), **dict(zip(columns, row, strict=True))} for row in numbers]


def _short(value: float) -> float:
    """Leave out digits that no screen shows; a page holds thousands of these."""
    return value if isinstance(value, int) else float(f"{value:.6g}")


def _reach(data: LossBySteps) -> tuple[float, float, bool]:
    """Find the losses to show, and whether some lie outside: what a diverged trial rose to hides all other curves."""
    losses = [loss for curve in data.curves for loss in (*curve.losses, *curve.smoothed)]
    begin = max((curve.losses[0] for curve in data.curves), default=1.0)
    low, most = min(losses, default=0.0), max(losses, default=1.0)
    high = min(most, 1.5 * begin)
    room = 0.04 * (high - low) or 0.01
    return float(f"{low - room:.3g}"), float(f"{high + room:.3g}"), most > high


def _marked(curves: Sequence[Curve], x: Spec, y: Spec) -> list[Spec]:
    """Cross the curves that ended early and name each at its end, where names do not cover each other."""
    low, high = y["scale"]["domain"]
    layers: list[Spec] = []
    ended = [_curve_rows(curve)[-1] for curve in curves if curve.ended_early]
    if ended:
        rows: Rows = [row | {"smoothed": min(row["smoothed"], high)} for row in ended]
        layers.append({"data": {"values": rows}, "mark": cross(), "encoding": {"x": x, "y": y, "opacity": chosen(1.0)}})
    places = spread([curve.smoothed[-1] for curve in curves], low, high, (high - low) * LINE_HEIGHT / HEIGHT)
    rows = [
        {"rank": str(curve.rank), "smoothed": place, "words": f"r {curve.rank}"}
        for curve, place in zip(curves, places, strict=True)
    ]
    mark = {"type": "text", "align": "left", "fontSize": 11, "fontWeight": "bold"}
    fields = {"x": {"value": WIDTH + 5}, "y": y, "text": {"field": "words"}, "opacity": chosen(1.0)}
    return [*layers, {"data": {"values": rows}, "mark": mark, "encoding": fields}]


def _pointed(data: LossBySteps, x: Spec, y: Spec) -> Spec:
    """Put points on the curves, seen under the pointer only, that say their numbers."""
    rows = [row for curve in data.curves for row in _curve_rows(curve)[:: -(-len(curve.steps) // MOST_POINTED)]]
    seen = {"condition": {"param": "pointed", "empty": False, "value": 1}, "value": 0}
    return {
        "params": [{"name": "pointed", "select": {"type": "point", "on": "pointerover", "clear": "pointerout"}}],
        "data": {"values": rows},
        "mark": {"type": "point", "filled": True, "size": 70, "clip": True},
        "encoding": {"x": x, "y": y, "opacity": seen, "tooltip": _curve_tips(data)},
    }


def _x_choices(data: LossBySteps) -> list[Spec]:
    """Say which fields the horizontal axis may show; a page offers the choice."""
    choices = [{"field": "step", "title": metric_title("step")}]
    if all(curve.tokens for curve in data.curves):
        choices.append({"field": "tokens", "title": tr("tokens trained on")})
    if all(curve.seconds for curve in data.curves):
        choices.append({"field": "seconds", "title": tr("time of the rank alone (s)")})
    return choices


def _curve_tips(data: LossBySteps) -> list[Spec]:
    title = metric_title(data.metric)
    tips: list[Spec] = [{"field": "rank", "title": metric_title("rank")}]
    tips += [{"field": choice["field"], "title": choice["title"], "format": ",.6~g"} for choice in _x_choices(data)]
    tips.append({"field": "loss", "title": title, "format": ".4f"})
    if data.smoothed:
        tips.append({"field": "smoothed", "title": tr("smoothed"), "format": ".4f"})
    return [tip | ({"type": "quantitative"} if "format" in tip else {"type": "nominal"}) for tip in tips]


def _point_row(point: RankPoint) -> dict[str, Any]:
    return {"rank": str(point.rank), "value": point.value, "low": point.low, "high": point.high}


def _label_end(point: RankPoint, tolerance: float | None) -> Literal["low", "high"]:
    return "low" if tolerance is not None and point.high <= tolerance else "high"

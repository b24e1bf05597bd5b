"""Curves of a loss by step: mean and band of each rank's seeds, with a crosshair where a browser draws them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lorascope.charts import vega
from lorascope.charts.label_layout import spread
from lorascope.charts.vega import Rows, Spec
from lorascope.text.language import tr
from lorascope.text.metrics import metric_title

MAX_HOVER_POINTS = 120
"""Points of a curve that answer the pointer."""
Along = Literal["step", "tokens", "seconds"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Loss of one rank, or of one trial, over steps."""

    rank: int
    steps: tuple[int, ...]
    losses: tuple[float, ...]
    """Nats a token, finite."""
    smoothed: tuple[float, ...]
    """The same, smoothed; equal to ``losses`` where there is nothing to smooth."""
    ended_early: bool
    """True where the trial diverged, ran out of memory or failed after the last point."""
    trial_id: str = ""
    tokens: tuple[int, ...] = ()
    """Tokens trained on up to each point."""
    seconds: tuple[float, ...] = ()
    """Time of the rank alone up to each point, from its measured step; empty where it was not measured."""
    smoother: tuple[float, ...] = ()
    """The losses smoothed more; empty where that was not asked for."""
    low: tuple[float, ...] = ()
    """Lowest smoothed loss of the seeds at each point; empty with one seed."""
    high: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class LossByStep:
    """Curves of one loss, one for each rank."""

    metric: str
    """Name in ``METRICS``."""
    curves: tuple[Curve, ...]
    others: tuple[Curve, ...] = ()
    """Trials at other learning rates and seeds."""

    @property
    def smoothed(self) -> bool:
        """True if any curve was smoothed."""
        return any(curve.losses != curve.smoothed for curve in self.curves)


def loss_by_step_spec(data: LossByStep, ranks: Sequence[int], *, along: Along = "step", hover: bool = False) -> Spec:
    """Draw a curve for each rank, raw values faint behind smoothed ones, and a cross where a trial ended early.

    The chart's parameters ``raw`` and ``others`` show the single steps, and the trials that are not a rank's best.

    Args:
        data: the curves.
        ranks: of the study, for colours.
        along: the horizontal axis; every curve must have its tokens or seconds.
        hover: add a crosshair that answers the pointer, for a browser.
    """
    low, high, clip = _loss_range(data)
    x: Spec = {"type": "quantitative", "axis": {"tickCount": 8} | (vega.WHOLE_NUMBERS if along == "step" else {})}
    x |= next(choice for choice in _x_axes(data) if choice["field"] == along)
    y: Spec = {"field": "smoothed", "type": "quantitative", "title": metric_title(data.metric)}
    y["scale"] = {"zero": False, "domain": [low, high]}
    layers = [*_line_layers(data, ranks, x, y, clip=clip), *_end_layers(data.curves, x, y)]
    if hover:
        layers += _crosshair(data, x, y)
    for layer in layers:
        if layer["mark"]["type"] not in ("text", "rule"):
            layer["encoding"]["color"] = vega.color_of_rank(ranks)
    spec = vega.finish(layers, params=[{"name": "raw", "value": True}, {"name": "others", "value": False}])
    spec["data"] = {"values": [row for curve in data.curves for row in _curve_rows(curve)]}
    spec["usermeta"] = {"x": _x_axes(data), "y": _smoothings(data), "raw": data.smoothed, "others": bool(data.others)}
    return spec


def _line_layers(data: LossByStep, ranks: Sequence[int], x: Spec, y: Spec, *, clip: bool) -> list[Spec]:
    """Draw bands of seeds, then single steps, then other trials, then the curves themselves."""
    line: Spec = {"type": "line", "clip": clip}
    layers: list[Spec] = []
    if any(curve.low for curve in data.curves):
        band = {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "opacity": vega.chosen(0.2)}
        layers.append({"mark": {"type": "area", "clip": True}, "encoding": band})
    if data.smoothed:
        fields = {"x": x, "y": {**y, "field": "loss"}, "opacity": vega.chosen(vega.RAW_OPACITY)}
        layers.append({"transform": [{"filter": "raw"}], "mark": line | {"strokeWidth": 1}, "encoding": fields})
    if data.others:
        rows = [row | {"trial": curve.trial_id} for curve in data.others for row in _curve_rows(curve)]
        fields = {"x": x, "y": y, "detail": {"field": "trial"}, "opacity": vega.chosen(0.45)}
        faint: Spec = {"data": {"values": rows}, "transform": [{"filter": "others"}], "encoding": fields}
        layers.append(faint | {"mark": line | {"strokeWidth": 1, "clip": True}})
    bold = line | {"strokeWidth": 2} | ({} if data.smoothed else {"point": {"size": 30}})
    fields = {"x": x, "y": y, "strokeDash": vega.dash_of_rank(ranks), "opacity": vega.chosen(1.0)}
    layers.append({"name": "ranks", "params": [vega.legend_choice()], "mark": bold, "encoding": fields})
    return layers


def _curve_rows(curve: Curve) -> Rows:
    columns: dict[str, Sequence[float]] = {"step": curve.steps, "loss": curve.losses, "smoothed": curve.smoothed}
    further = {"smoother": curve.smoother if curve.losses != curve.smoothed else (), "low": curve.low,
               "high": curve.high, "tokens": curve.tokens, "seconds": curve.seconds}  # fmt: skip
    columns |= {name: values for name, values in further.items() if values}
    numbers = zip(*(map(_rounded, column) for column in columns.values()), strict=True)
    return [{"rank": str(curve.rank), **dict(zip(columns, row, strict=True))} for row in numbers]


def _rounded(value: float) -> float:
    """Drop digits that no screen shows; a page holds thousands of these."""
    return value if isinstance(value, int) else float(f"{value:.5g}")


def _loss_range(data: LossByStep) -> tuple[float, float, bool]:
    """Return the lowest and highest loss to show, and whether losses of a diverged trial lie above."""
    losses = [loss for curve in data.curves for loss in (*curve.losses, *curve.smoothed, *curve.low, *curve.high)]
    begin = max((curve.losses[0] for curve in data.curves), default=1.0)
    low, most = min(losses, default=0.0), max(losses, default=1.0)
    high = min(most, 1.5 * begin)
    margin = 0.04 * (high - low) or 0.01
    return float(f"{low - margin:.3g}"), float(f"{high + margin:.3g}"), most > high


def _end_layers(curves: Sequence[Curve], x: Spec, y: Spec) -> list[Spec]:
    """Cross the curves that ended early, and label each at its end without overlaps."""
    low, high = y["scale"]["domain"]
    layers: list[Spec] = []
    ended = [_curve_rows(curve)[-1] for curve in curves if curve.ended_early]
    if ended:
        rows: Rows = [row | {"smoothed": min(row["smoothed"], high)} for row in ended]
        layers.append(
            {"data": {"values": rows}, "mark": vega.cross(), "encoding": {"x": x, "y": y, "opacity": vega.chosen(1.0)}}
        )
    places = spread([curve.smoothed[-1] for curve in curves], low, high, (high - low) * vega.LINE_HEIGHT / vega.HEIGHT)
    rows = [{"rank": str(curve.rank), "smoothed": place} for curve, place in zip(curves, places, strict=True)]
    return layers + vega.end_labels(rows, y)


def _crosshair(data: LossByStep, x: Spec, y: Spec) -> list[Spec]:
    """Follow the pointer with a line at the nearest step, and show all ranks' losses there."""
    rows = [row for curve in data.curves for row in _curve_rows(curve)[:: -(-len(curve.steps) // MAX_HOVER_POINTS)]]
    for row in rows:
        row |= {f"r{curve.rank}": _loss_at(curve, row["step"]) for curve in data.curves}
    near: Spec = {"type": "point", "fields": ["step"], "nearest": True, "on": "pointermove", "clear": "pointerout"}
    at_pointer = {"transform": [{"filter": {"param": "pointed", "empty": False}}], "data": {"values": rows}}
    return [
        at_pointer | {"mark": {"type": "rule", "color": vega.INK, "strokeDash": [2, 3]}, "encoding": {"x": x}},
        at_pointer | {"mark": {"type": "point", "filled": True, "size": 60, "clip": True, "opacity": 1},
                      "encoding": {"x": x, "y": y}},
        {"params": [{"name": "pointed", "select": near}], "data": {"values": rows},
         "mark": {"type": "point", "filled": True, "size": 1, "opacity": 0, "clip": True},
         "encoding": {"x": x, "y": y, "tooltip": _tooltip(data)}},
    ]  # fmt: skip


def _loss_at(curve: Curve, step: int) -> float | None:
    if not curve.steps[0] <= step <= curve.steps[-1]:
        return None
    return _rounded(float(np.interp(step, curve.steps, curve.smoothed)))


def _x_axes(data: LossByStep) -> list[Spec]:
    """List the fields that the horizontal axis may show; a page offers the choice."""
    choices = [{"field": "step", "title": metric_title("step")}]
    if all(curve.tokens for curve in data.curves):
        choices.append({"field": "tokens", "title": tr("tokens trained on")})
    if all(curve.seconds for curve in data.curves):
        choices.append({"field": "seconds", "title": tr("time of the rank alone (s)")})
    return choices


def _smoothings(data: LossByStep) -> list[Spec]:
    """List the fields that the bold curve may show, by how much they are smoothed; none where nothing is."""
    if not data.smoothed or not all(curve.smoother for curve in data.curves):
        return []
    return [{"field": "smoothed", "title": tr("over 5%")}, {"field": "smoother", "title": tr("over 20%")},
            {"field": "loss", "title": tr("none")}]  # fmt: skip


def _tooltip(data: LossByStep) -> list[dict[str, Any]]:
    axes = [
        {"field": choice["field"], "type": "quantitative", "title": choice["title"], "format": ",.6~g"}
        for choice in _x_axes(data)
        if choice["field"] != "seconds"
    ]
    ranks = [
        {"field": f"r{curve.rank}", "type": "quantitative", "title": tr("rank {rank}", rank=curve.rank),
         "format": ".4f"}
        for curve in data.curves
    ]  # fmt: skip
    return axes + ranks

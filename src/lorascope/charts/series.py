"""Quantities over time: thinned series, and lines drawn through them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lorascope.charts import vega
from lorascope.charts.downsample import keep_peaks
from lorascope.charts.label_layout import spread
from lorascope.charts.vega import Spec

MAX_POINTS = 600
"""Points of one series."""
_COLORS = ("#5a7fa0", "#b0417a", "#4f8a1f", "#9a5b3c")


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One quantity over time."""

    name: str
    """In the language in use; a rank's number where the series belongs to a rank."""
    times: tuple[float, ...]
    values: tuple[float, ...]


def thinned(name: str, times: Sequence[float], values: Sequence[float]) -> Series:
    """Make a series of at most ``MAX_POINTS`` points that keeps its peaks."""
    kept = keep_peaks(np.array(values, dtype=np.float64), MAX_POINTS)
    return Series(name=name, times=tuple(times[i] for i in kept), values=tuple(float(values[i]) for i in kept))


def rank_series_spec(
    series: Sequence[Series], x_title: str, y_title: str, ranks: Sequence[int], *, whole: bool = False
) -> Spec:
    """Draw a line for each rank over time, or over steps (``whole`` numbers), named at its end."""
    low, high = _value_range(series)
    x, y = _line_axes(x_title, y_title, low, high, vega.WHOLE_NUMBERS if whole else {})
    ends = spread([one.values[-1] for one in series], low, high, (high - low) * vega.LINE_HEIGHT / vega.HEIGHT)
    labels = [{"rank": one.name, "value": end} for one, end in zip(series, ends, strict=True)]
    color = vega.color_of_rank(ranks)
    encoding = {"x": x, "y": y, "color": color, "opacity": vega.chosen(1.0)}
    dots, names = vega.end_labels(labels, y)
    dots["encoding"]["color"] = color
    layers: list[Spec] = [
        {"name": "ranks", "params": [vega.legend_choice()], "data": {"values": _series_rows(series, "rank")},
         "mark": {"type": "line", "strokeWidth": 1.5}, "encoding": encoding | {"strokeDash": vega.dash_of_rank(ranks)}},
        dots,
        names,
    ]  # fmt: skip
    return vega.finish(layers)


def series_spec(series: Sequence[Series], x_title: str, y_title: str) -> Spec:
    """Draw lines over time that belong to no rank."""
    names = [one.name for one in series]
    low, high = _value_range(series)
    x, y = _line_axes(x_title, y_title, low, high, {})
    legend = {"title": None, "orient": "top"} if len(series) > 1 else None
    color = {"field": "name", "type": "nominal", "sort": names, "legend": legend,
             "scale": {"domain": names, "range": list(_COLORS[: len(names)])}}  # fmt: skip
    mark = {"type": "line", "strokeWidth": 1.5}
    layers: list[Spec] = [
        {"data": {"values": _series_rows(series, "name")}, "mark": mark, "encoding": {"x": x, "y": y, "color": color}}
    ]
    return vega.finish(layers)


def _value_range(series: Sequence[Series]) -> tuple[float, float]:
    values = [value for one in series for value in one.values]
    margin = 0.04 * (max(values) - min(values)) or 0.01 * max(values) or 1.0
    return max(0.0, min(values) - margin), max(values) + margin


def _line_axes(x_title: str, y_title: str, low: float, high: float, axis: Spec) -> tuple[Spec, Spec]:
    x = {"field": "time", "type": "quantitative", "title": x_title, "axis": {"tickCount": 8} | axis}
    y = {"field": "value", "type": "quantitative", "title": y_title, "scale": {"zero": False, "domain": [low, high]}}
    return x, y


def _series_rows(series: Sequence[Series], name: str) -> list[dict[str, Any]]:
    return [
        {name: one.name, "time": float(f"{time:.6g}"), "value": float(f"{value:.6g}")}
        for one in series
        for time, value in zip(one.times, one.values, strict=True)
    ]

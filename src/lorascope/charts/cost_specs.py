"""Vega-Lite specifications of the charts of costs."""

from collections.abc import Sequence
from typing import Any

from lorascope.charts.costs import MemoryShare, RankValue, Series, TradeOff
from lorascope.charts.label_layout import spread
from lorascope.charts.vega import (
    HEIGHT,
    INK,
    LABEL_ROOM,
    LINE_HEIGHT,
    WIDTH,
    Spec,
    chosen,
    color_of_rank,
    dash_of_rank,
    dashed_line,
    finish,
    legend_choice,
    rank_axis,
)
from lorascope.text.language import tr
from lorascope.text.metrics import metric_title
from lorascope.text.numbers import format_seconds
from lorascope.units import format_bytes, from_megabytes

_PART_COLORS = ("#c3c7d0", "#8f96a3", "#2f8fa8", "#b0417a", "#4f8a1f", "#9a8fd1", "#d8a35d")
"""From the part that all ranks share to what is left; they differ in lightness, too."""


def runtime_spec(points: Sequence[RankValue], ranks: Sequence[int]) -> Spec:
    """Draw a bar from 0 for each rank, with its time written above."""
    divisor, unit = time_unit(max(point.value for point in points))
    rows = [
        {"rank": str(point.rank), "value": point.value / divisor, "words": format_seconds(point.value)}
        for point in points
    ]
    x = rank_axis(ranks)
    y = {"field": "value", "type": "quantitative", "title": metric_title("runtime_seconds", unit=unit)}
    tips = [{"field": "rank", "title": metric_title("rank")}, {"field": "words", "title": y["title"]}]
    data = {"values": rows}
    color = color_of_rank(ranks, legend=False)
    layers: list[Spec] = [
        {"data": data, "mark": {"type": "bar", "width": {"band": 0.6}},
         "encoding": {"x": x, "y": y, "color": color, "tooltip": tips}},
        {"data": data, "mark": {"type": "text", "dy": -8, "fontSize": 12, "color": INK},
         "encoding": {"x": x, "y": y, "text": {"field": "words"}}},
    ]  # fmt: skip
    return finish(layers)


def memory_split_spec(shares: Sequence[MemoryShare], ranks: Sequence[int]) -> Spec:
    """Stack each rank's parts, in their order from the bottom, with the sum written above."""
    parts = list(dict.fromkeys(share.part for share in shares))
    rows = [
        {"rank": str(share.rank), "part": share.part, "order": parts.index(share.part), "value": share.megabytes,
         "words": format_bytes(from_megabytes(share.megabytes))}
        for share in shares
    ]  # fmt: skip
    sums = {rank: sum(share.megabytes for share in shares if share.rank == rank) for rank in ranks}
    tops = [
        {"rank": str(rank), "value": size, "words": format_bytes(from_megabytes(size))}
        for rank, size in sums.items()
        if size
    ]
    x = rank_axis(ranks)
    y = {"field": "value", "type": "quantitative", "title": metric_title("memory")}
    legend = {"title": None, "orient": "top", "columns": 3}
    scale = {"domain": parts, "range": list(_PART_COLORS[: len(parts)])}
    color = {"field": "part", "type": "nominal", "sort": parts, "scale": scale, "legend": legend}
    tips = [{"field": "rank", "title": metric_title("rank")}, {"field": "part", "title": tr("part")},
            {"field": "words", "title": tr("memory")}]  # fmt: skip
    bar = {"type": "bar", "width": {"band": 0.6}}
    layers: list[Spec] = [
        {"data": {"values": rows}, "mark": bar,
         "encoding": {"x": x, "y": y, "color": color, "order": {"field": "order"}, "tooltip": tips}},
        {"data": {"values": tops}, "mark": {"type": "text", "dy": -8, "fontSize": 12, "color": INK},
         "encoding": {"x": x, "y": y, "text": {"field": "words"}}},
    ]  # fmt: skip
    return finish(layers)


def rank_series_spec(series: Sequence[Series], x_title: str, y_title: str, ranks: Sequence[int]) -> Spec:
    """Draw a line over time for each rank, named at its end."""
    low, high = _reach(series)
    x, y = _line_axes(x_title, y_title, low, high)
    ends = spread([one.values[-1] for one in series], low, high, (high - low) * LINE_HEIGHT / HEIGHT)
    labels = [{"rank": one.name, "value": end, "words": f"r {one.name}"} for one, end in zip(series, ends, strict=True)]
    encoding = {"x": x, "y": y, "color": color_of_rank(ranks), "opacity": chosen(1.0)}
    mark = {"type": "text", "align": "left", "fontSize": 11, "fontWeight": "bold"}
    layers: list[Spec] = [
        {"name": "ranks", "params": [legend_choice()], "data": {"values": _series_rows(series, "rank")},
         "mark": {"type": "line", "strokeWidth": 1.5}, "encoding": encoding | {"strokeDash": dash_of_rank(ranks)}},
        {"data": {"values": labels}, "mark": mark,
         "encoding": encoding | {"x": {"value": WIDTH + 5}, "text": {"field": "words"}}},
    ]  # fmt: skip
    return finish(layers)


def series_spec(series: Sequence[Series], x_title: str, y_title: str) -> Spec:
    """Draw lines over time that belong to no rank."""
    names = [one.name for one in series]
    low, high = _reach(series)
    x, y = _line_axes(x_title, y_title, low, high)
    colors = ["#5a7fa0", "#b0417a", "#4f8a1f", "#9a5b3c"]
    legend = {"title": None, "orient": "top"} if len(series) > 1 else None
    color = {"field": "name", "type": "nominal", "sort": names, "legend": legend,
             "scale": {"domain": names, "range": colors[: len(names)]}}  # fmt: skip
    mark = {"type": "line", "strokeWidth": 1.5}
    layers: list[Spec] = [
        {"data": {"values": _series_rows(series, "name")}, "mark": mark, "encoding": {"x": x, "y": y, "color": color}}
    ]
    return finish(layers)


def trade_off_spec(
    points: Sequence[TradeOff], x_title: str, tolerance: float, ranks: Sequence[int], *, divisor: float = 1.0
) -> Spec:
    """Draw each rank where its cost, divided by ``divisor``, and its loss put it: hollow outside the Pareto set."""
    x = {"field": "cost", "type": "quantitative", "title": x_title, "axis": {"tickCount": 8},
         "scale": {"zero": False, "padding": LABEL_ROOM}}  # fmt: skip
    y = {"field": "low", "type": "quantitative", "title": metric_title("excess_loss"),
         "scale": {"zero": False, "padding": LABEL_ROOM}}  # fmt: skip
    ends = [tolerance, *(end for point in points for end in (point.low, point.high))]
    apart = 0.7 * LINE_HEIGHT / HEIGHT * (max(ends) - min(ends))
    rows = [
        {"rank": str(point.rank), "words": f"r {point.rank}", "cost": point.cost / divisor, "pareto": point.pareto,
         "value": point.excess, "low": point.low, "high": point.high, "label": _beside(point.excess, tolerance, apart)}
        for point in points
    ]  # fmt: skip
    color = color_of_rank(ranks, legend=False)
    tips = [
        {"field": "rank", "title": metric_title("rank")},
        {"field": "cost", "type": "quantitative", "title": x_title, "format": ",.4~g"},
        {"field": "value", "type": "quantitative", "title": metric_title("excess_loss"), "format": ".4f"},
    ]
    value = {**y, "field": "value"}
    layers: list[Spec] = [
        {"data": {"values": rows}, "mark": {"type": "rule", "strokeWidth": 1.5},
         "encoding": {"x": x, "y": y, "y2": {"field": "high"}, "color": color}},
        *(
            {"data": {"values": [row for row in rows if row["pareto"] == filled]},
             "mark": {"type": "point", "size": 90, "filled": filled, "opacity": 1, "strokeWidth": 2},
             "encoding": {"x": x, "y": value, "color": color, "tooltip": tips}}
            for filled in (True, False)
        ),
        {"data": {"values": rows}, "mark": {"type": "text", "dx": 9, "align": "left", "fontSize": 12, "color": INK},
         "encoding": {"x": x, "y": {**y, "field": "label"}, "text": {"field": "words"}}},
        *dashed_line(tolerance, tr("tolerance")),
    ]  # fmt: skip
    return finish(layers)


def _beside(value: float, line: float, gap: float) -> float:
    """Return where a label at ``value`` is not crossed by the line, at least ``gap`` from it."""
    if abs(value - line) >= gap:
        return value
    return line + gap if value >= line else line - gap


def time_unit(seconds: float) -> tuple[float, str]:
    """Choose what to divide seconds by for an axis that reaches to ``seconds``, and the unit's sign."""
    if seconds >= 3 * 3600:
        return 3600.0, tr("h")
    if seconds >= 3 * 60:
        return 60.0, tr("min")
    return 1.0, tr("s")


def _reach(series: Sequence[Series]) -> tuple[float, float]:
    values = [value for one in series for value in one.values]
    room = 0.04 * (max(values) - min(values)) or 0.01 * max(values) or 1.0
    return max(0.0, min(values) - room), max(values) + room


def _line_axes(x_title: str, y_title: str, low: float, high: float) -> tuple[Spec, Spec]:
    x = {"field": "time", "type": "quantitative", "title": x_title, "axis": {"tickCount": 8}}
    y = {"field": "value", "type": "quantitative", "title": y_title, "scale": {"zero": False, "domain": [low, high]}}
    return x, y


def _series_rows(series: Sequence[Series], name: str) -> list[dict[str, Any]]:
    return [
        {name: one.name, "time": float(f"{time:.6g}"), "value": float(f"{value:.6g}")}
        for one in series
        for time, value in zip(one.times, one.values, strict=True)
    ]

"""Shared pieces of Vega-Lite specifications: size, theme, colours of ranks, intervals, selection of ranks."""

from collections.abc import Sequence
from typing import Any

from lorascope.charts.colors import rank_colors, rank_dash
from lorascope.charts.fonts import font_family
from lorascope.text.language import tr
from lorascope.text.metrics import metric_title

WIDTH = 460
HEIGHT = 230
INK = "#5b6270"
"""Axes and text on white; a page puts its own text colour in its place."""
WHOLE_NUMBERS = {"format": ",d", "labelExpr": "datum.value % 1 ? '' : datum.label"}
"""Axis of steps: with few steps, ticks fall between two, where a label would be wrong."""
GRID = "#80879433"
"""Visible on white and on the dark page."""
RAW_OPACITY = 0.25
LABEL_MARGIN = 26
"""Pixels kept free beyond the ends of intervals."""
LINE_HEIGHT = 13
"""Pixels between direct labels."""
BEYOND = {"value": {"expr": "width + 5"}}
"""Place of a label behind the right edge, whatever the width that a page draws a chart at."""
CHOICE = "rank_choice"
"""Name of the selection of ranks, bound to the legend; a page links it across its charts."""

Spec = dict[str, Any]
Rows = list[dict[str, Any]]


def interval_layers(
    rows: Rows, x: Spec, title: str, color: Spec, *, lines: Sequence[tuple[float, str]], digits: str = ".4f"
) -> list[Spec]:
    """Draw a point with its interval for each row, and named dashed lines.

    Args:
        rows: with ``value``, ``low``, ``high``, and ``end``, the end of the interval that carries the label.
        x: the horizontal axis.
        title: of the vertical axis.
        color: of points and intervals.
        lines: value and name of each line.
        digits: format of the values.
    """
    y = {"field": "low", "type": "quantitative", "title": title, "scale": {"zero": False, "padding": LABEL_MARGIN}}
    data = {"values": rows}
    tips = _interval_tooltip(x, title, digits)
    point: Spec = {"type": "point", "filled": True, "size": 60, "opacity": 1}
    layers: list[Spec] = [
        {"data": data, "mark": {"type": "rule", "strokeWidth": 2},
         "encoding": {"x": x, "y": y, "y2": {"field": "high"}, "color": color}},
        {"data": data, "mark": point,
         "encoding": {"x": x, "y": {**y, "field": "value"}, "color": color, "tooltip": tips}},
    ]  # fmt: skip
    for end, dy in (("low", 14), ("high", -12)):
        at_end = {"values": [row for row in rows if row["end"] == end]}
        text = {"field": "value", "type": "quantitative", "format": digits}
        mark = {"type": "text", "dy": dy, "color": INK, "fontSize": 12}
        if at_end["values"]:
            layers.append({"data": at_end, "mark": mark, "encoding": {"x": x, "y": {**y, "field": end}, "text": text}})
    return layers + [layer for value, words in lines for layer in dashed_line(value, words)]


def _interval_tooltip(x: Spec, title: str, digits: str) -> list[Spec]:
    low, high = tr("lower end of the 95% interval"), tr("upper end of the 95% interval")
    numbers = (("value", title), ("low", low), ("high", high))
    return [
        {"field": x["field"], "title": x["title"]},
        *({"field": name, "type": "quantitative", "title": words, "format": digits} for name, words in numbers),
    ]


def dashed_line(value: float, words: str) -> list[Spec]:
    """Draw a horizontal line, named outside the right edge."""
    data = {"values": [{"at": value, "words": words}]}
    y = {"field": "at", "type": "quantitative"}
    return [
        {"data": data, "mark": {"type": "rule", "strokeDash": [5, 4], "color": INK}, "encoding": {"y": y}},
        {"data": data, "mark": {"type": "text", "align": "left", "color": INK, "fontSize": 11},
         "encoding": {"x": BEYOND, "y": y, "text": {"field": "words"}}},
    ]  # fmt: skip


def rank_axis(ranks: Sequence[int]) -> Spec:
    """Give every rank a place, also those without a value, so that charts of ranks line up."""
    names = [str(rank) for rank in sorted(ranks)]
    return {
        "field": "rank", "type": "nominal", "title": metric_title("rank"), "sort": names,
        "axis": {"labelAngle": 0}, "scale": {"domain": names},
    }  # fmt: skip


def color_of_rank(ranks: Sequence[int], *, legend: bool = True) -> Spec:
    """Colour by the field ``rank``; a rank has the same colour in every chart."""
    colors = rank_colors(ranks)
    shown = _rank_legend() if legend else None
    names = [str(rank) for rank in colors]
    scale = {"domain": names, "range": list(colors.values())}
    return {"field": "rank", "type": "nominal", "scale": scale, "sort": names, "legend": shown}


def dash_of_rank(ranks: Sequence[int]) -> Spec:
    """Dash by the field ``rank``, for print without colour; colours and dashes share a legend."""
    dashes = rank_dash(ranks)
    names = [str(rank) for rank in dashes]
    scale = {"domain": names, "range": list(dashes.values())}
    return {"field": "rank", "type": "nominal", "scale": scale, "sort": names, "legend": _rank_legend()}


def _rank_legend() -> Spec:
    return {
        "title": metric_title("rank"), "orient": "top", "symbolType": "stroke", "symbolStrokeWidth": 3,
        "symbolSize": 400, "symbolOpacity": 1, "columns": 8,
    }  # fmt: skip


def text_above(rows: Rows, x: Spec, y: Spec) -> Spec:
    """Write ``words`` above each row's ``value``."""
    mark = {"type": "text", "dy": -8, "fontSize": 12, "color": INK}
    return {"data": {"values": rows}, "mark": mark, "encoding": {"x": x, "y": y, "text": {"field": "words"}}}


def time_unit(seconds: float) -> tuple[float, str]:
    """Choose the divisor and the unit's sign for an axis that reaches to ``seconds``."""
    if seconds >= 3 * 3600:
        return 3600.0, tr("h")
    if seconds >= 3 * 60:
        return 60.0, tr("min")
    return 1.0, tr("s")


def end_labels(rows: Rows, y: Spec) -> list[Spec]:
    """Name each rank behind the right edge, in ink beside a dot of its colour: a rank's colour is too pale for text.

    Args:
        rows: with ``rank``, and the field of ``y`` where the label stands.
        y: the vertical axis.
    """
    data = {"values": [row | {"words": f"r {row['rank']}"} for row in rows]}
    dot = {"type": "point", "filled": True, "size": 40, "xOffset": 4}
    text = {"type": "text", "align": "left", "fontSize": 11, "dx": 11, "color": INK}
    seen = {"x": BEYOND, "y": y, "opacity": chosen(1.0)}
    return [
        {"data": data, "mark": dot, "encoding": seen},
        {"data": data, "mark": text, "encoding": seen | {"text": {"field": "words"}}},
    ]


def legend_choice() -> Spec:
    """Select ranks by their legend."""
    return {"name": CHOICE, "select": {"type": "point", "fields": ["rank"], "toggle": "true"}, "bind": "legend"}


def chosen(opacity: float) -> Spec:
    """Fade ranks that are not selected; selected ones, or all if none is, have this opacity."""
    return {"condition": {"param": CHOICE, "value": opacity}, "value": 0.06}


def cross() -> Spec:
    """Mark a trial that ended early."""
    return {"type": "point", "shape": "cross", "angle": 45, "size": 140, "filled": True, "opacity": 1}


def finish(layers: Sequence[Spec], *, height: int = HEIGHT, params: Sequence[Spec] = ()) -> Spec:
    """Put layers into a chart of the shared size and theme."""
    text = {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"}
    config: Spec = {
        "font": font_family(),
        "axis": text | {"gridColor": GRID, "domainColor": INK, "tickColor": INK, "labelFlush": False},
        "legend": text | {"titleOrient": "left", "titleLimit": 400, "labelLimit": 300},
        "view": {"stroke": None},
        "aria": False,  # the figure around it is named; every mark by itself would only be noise
    }
    spec: Spec = {"width": WIDTH, "height": height, "background": "transparent", "layer": list(layers)}
    if params:
        spec["params"] = list(params)
    return spec | {"config": config}

"""Vega-Lite specifications of the charts of an adapter's use."""

from collections.abc import Sequence

from lorascope.charts.usage import CutCurve, UseByLayer
from lorascope.charts.vega import Spec, color_of_rank, finish
from lorascope.text.language import tr
from lorascope.text.metrics import metric_title

_KIND_COLORS = ("#b0417a", "#4f8a1f", "#7a7f8c", "#9a5b3c", "#2f8fa8", "#8a6fd1", "#a8862a")
"""None of them is the colour of a rank; all have a contrast of 3:1 on white and on the dark page."""
_SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "stroke")


def cut_curve_spec(data: CutCurve, ranks: Sequence[int]) -> Spec:
    """Draw the cuts as a line in the colour of their rank, and the trained ranks as diamonds in theirs."""
    top = str(data.top)
    cuts = [{"rank": top, "at": rank, "loss": loss} for rank, loss in data.cuts]
    trained = [{"rank": str(rank), "at": rank, "loss": loss} for rank, loss in data.trained]
    places = sorted({rank for rank, _ in (*data.cuts, *data.trained)})
    x = {
        "field": "at", "type": "quantitative", "title": metric_title("rank"),
        "scale": {"type": "log", "base": 2, "nice": False}, "axis": {"values": places, "format": "d", "grid": False},
    }  # fmt: skip
    y = {"field": "loss", "type": "quantitative", "title": metric_title("eval_loss"), "scale": {"zero": False}}
    tips = [
        {"field": "at", "type": "quantitative", "title": metric_title("rank")},
        {"field": "loss", "type": "quantitative", "format": ".4f", "title": metric_title("eval_loss")},
    ]
    encoding = {"x": x, "y": y, "color": color_of_rank(ranks), "tooltip": tips}
    line = {"type": "line", "strokeWidth": 2, "point": {"size": 40}}
    diamonds = {"type": "point", "shape": "diamond", "size": 110, "filled": True, "opacity": 1}
    return finish(
        [
            {"data": {"values": cuts}, "mark": line, "encoding": encoding},
            {"data": {"values": trained}, "mark": diamonds, "encoding": encoding},
        ]
    )


def use_by_layer_spec(data: UseByLayer) -> Spec:
    """Draw a line for each kind of module over the depth of the model; marks tell kinds apart, too."""
    names = [kind for kind, _ in data.kinds]
    rows = [
        {"module": kind, "layer": depth, "effective": value}
        for kind, values in data.kinds
        for depth, value in enumerate(values)
    ]
    legend = {"title": tr("module"), "orient": "top", "columns": 4}
    colors, shapes = ([choice[i % len(choice)] for i in range(len(names))] for choice in (_KIND_COLORS, _SHAPES))
    module = {"field": "module", "type": "nominal", "sort": names, "legend": legend}
    title = metric_title("effective_rank")
    encoding = {
        "x": {"field": "layer", "type": "quantitative", "title": tr("layer"),
              "axis": {"tickMinStep": 1, "format": "d"}},
        "y": {"field": "effective", "type": "quantitative", "title": title, "scale": {"zero": True}},
        "color": module | {"scale": {"domain": names, "range": colors}},
    }  # fmt: skip
    shape = module | {"scale": {"domain": names, "range": shapes}}
    tips = [
        {"field": "module", "title": tr("module")},
        {"field": "layer", "type": "quantitative", "title": tr("layer")},
        {"field": "effective", "type": "quantitative", "format": ".2f", "title": title},
    ]
    rows_data = {"values": rows}
    marks = {"type": "point", "filled": True, "size": 45, "opacity": 1}
    return finish(
        [
            {"data": rows_data, "mark": {"type": "line", "strokeWidth": 2}, "encoding": encoding},
            {"data": rows_data, "mark": marks, "encoding": encoding | {"shape": shape, "tooltip": tips}},
        ]
    )

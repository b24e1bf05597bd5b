"""Vega-Lite specifications of the charts of an adapter's use."""

from collections.abc import Sequence

import altair as alt

from lorascope.charts.specs import Spec, color_of_rank, finish, inline
from lorascope.charts.usage import CutCurve, UseByLayer
from lorascope.metrics import METRICS

_KIND_COLORS = ("#b0417a", "#4f8a1f", "#7a7f8c", "#9a5b3c", "#2f8fa8", "#8a6fd1", "#a8862a")
"""None of them is the colour of a rank; all have a contrast of 3:1 on white and on the dark page."""
_SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "stroke")


def cut_curve_spec(data: CutCurve, ranks: Sequence[int]) -> Spec:
    """Draw the cuts as a line in the colour of their rank, and the trained ranks as diamonds in theirs."""
    top = str(data.top)
    cuts = [{"rank": top, "at": rank, "loss": loss} for rank, loss in data.cuts]
    trained = [{"rank": str(rank), "at": rank, "loss": loss} for rank, loss in data.trained]
    places = sorted({rank for rank, _ in (*data.cuts, *data.trained)})
    axis = alt.Axis(values=places, format="d", grid=False)
    x = alt.X("at:Q", title=METRICS["rank"].title, scale=alt.Scale(type="log", base=2, nice=False), axis=axis)
    y = alt.Y("loss:Q", title=METRICS["eval_loss"].title, scale=alt.Scale(zero=False))
    line = alt.Chart(inline(cuts)).mark_line(strokeWidth=2, point=True).encode(x=x, y=y, color=color_of_rank(ranks))
    points = alt.Chart(inline(trained)).mark_point(shape="diamond", size=110, filled=True, opacity=1)
    return finish(alt.LayerChart(layer=[line, points.encode(x=x, y=y, color=color_of_rank(ranks))]))


def use_by_layer_spec(data: UseByLayer) -> Spec:
    """Draw a line for each kind of module over the depth of the model; marks tell kinds apart, too."""
    names = [kind for kind, _ in data.kinds]
    rows = [
        {"module": kind, "layer": depth, "effective": value}
        for kind, values in data.kinds
        for depth, value in enumerate(values)
    ]
    legend = alt.Legend(title="module", orient="top")
    colors, shapes = ([choice[i % len(choice)] for i in range(len(names))] for choice in (_KIND_COLORS, _SHAPES))
    base = alt.Chart(inline(rows)).encode(
        x=alt.X("layer:Q", title="layer", axis=alt.Axis(tickMinStep=1, format="d")),
        y=alt.Y("effective:Q", title=METRICS["effective_rank"].title, scale=alt.Scale(zero=True)),
        color=alt.Color("module:N", scale=alt.Scale(domain=names, range=colors), sort=names, legend=legend),
    )
    shape = alt.Shape("module:N", scale=alt.Scale(domain=names, range=shapes), sort=names, legend=legend)
    marks = base.mark_point(filled=True, size=45, opacity=1).encode(shape=shape)
    return finish(alt.LayerChart(layer=[base.mark_line(strokeWidth=2), marks]))

"""Charts of the page: those of live lines, whose rows the browser fills in, and the report's."""

import json
from collections.abc import Sequence
from typing import Any

from lorascope.analysis import StudyData, StudySummary
from lorascope.charts.colors import rank_colors
from lorascope.charts.registry import make_charts
from lorascope.charts.vega import INK, RAW_OPACITY, WHOLE_NUMBERS, Spec, color_of_rank, cross, dash_of_rank, finish
from lorascope.text.language import tr
from lorascope.text.metrics import metric_title
from lorascope.web.snapshot import Snapshot

ChartPart = dict[str, Any]
"""A chart as it is sent to the page; ``lines`` names the series that the browser draws into it."""
_TICKS = {"tickCount": 6, "labelOverlap": "greedy", "labelSeparation": 6}
_AXIS_ENDS = ("bottom", "top")
"""Parameters for the ends of the loss axis, which the browser sets from the lines it shows."""
_LIVE = ("train_loss", "eval_loss", "grad_norm", "learning_rate", "memory_over_time")
"""Charts of the report that live lines replace, or that are long: the report has them."""


def summary_charts(data: StudyData, summary: StudySummary) -> list[ChartPart]:
    """Return the report's charts except those of steps."""
    return [
        _chart(chart.name, chart.title, chart.caption, chart.page_spec)
        for chart in make_charts(data, summary).values()
        if chart.name not in _LIVE
    ]


def live_charts(snapshot: Snapshot) -> list[ChartPart]:
    """Return the charts of held-out loss, training loss and process memory, without rows."""
    if not snapshot.trials:
        return []
    ranks = sorted(snapshot.spec.ranks)
    steps = snapshot.resolved.total_steps if snapshot.resolved else None
    lines = tr("Strong: each rank at its best rate so far. Thin: other rates.")
    if len(snapshot.spec.target_sets) > 1:
        lines += " " + tr("All sets of target modules are drawn; choose one above.")
    charts = _loss_charts(_by_rank(ranks), lines, steps)
    if snapshot.sample is not None:
        caption = tr("The whole process over its running time. Faint: lowest and highest reading.")
        spec = _memory_lines(gpu=snapshot.sample.device_allocated_bytes is not None)
        charts.append(_chart("process_memory", tr("Memory of the process"), caption, spec, "memory"))
    return charts


def overlaid_charts(studies: Sequence[str], ranks: Sequence[int]) -> list[ChartPart]:
    """Return the charts of both losses of several studies on one axis: a colour a study, a dash a rank."""
    return _loss_charts(_by_study(studies, ranks), tr("Each rank at its best rate; a dash for each rank."), None)


def _loss_charts(look: Spec, lines: str, steps: int | None) -> list[ChartPart]:
    beyond = tr("Losses far above the start are cut off.")
    raw = tr("Exponential average over a twentieth of the run. Faint, for up to 6 lines: each step.")
    base = tr("Step 0 is the base model before training.")
    train, held_out = (_loss_lines(name, look, steps, raw=name == "train_loss") for name in ("train_loss", "eval_loss"))
    return [
        _chart("eval_loss", tr("Held-out loss"), f"{lines} {base} {beyond}", held_out, "eval"),
        _chart("train_loss", tr("Training loss"), f"{lines} {raw} {beyond}", train, "train"),
    ]


def _by_rank(ranks: Sequence[int]) -> Spec:
    return {"color": color_of_rank(ranks), "strokeDash": dash_of_rank(ranks)}


def _by_study(studies: Sequence[str], ranks: Sequence[int]) -> Spec:
    dash = dash_of_rank(ranks)
    scale = {"domain": list(studies), "range": list(rank_colors(range(len(studies))).values())}
    legend = {"orient": "top", "title": tr("study"), "symbolType": "stroke", "symbolStrokeWidth": 3,
              "symbolOpacity": 1}  # fmt: skip
    return {
        "color": {"field": "study", "type": "nominal", "scale": scale, "legend": legend},
        "strokeDash": dash | {"legend": dash["legend"] | {"orient": "bottom"}},
    }


def _chart(name: str, title: str, caption: str, spec: Spec, lines: str | None = None) -> ChartPart:
    return {"name": name, "title": title, "caption": caption, "spec": spec, "lines": lines}


def _loss_lines(metric: str, look: Spec, steps: int | None, *, raw: bool) -> Spec:
    """Draw the best trials' lines over all others', a crosshair at the pointer, and a cross where one ended early."""
    bottom, top = ({"expr": end} for end in _AXIS_ENDS)
    y = _axis("y", metric_title(metric), scale={"domainMin": bottom, "domainMax": top, "nice": False, "zero": False})
    x = _axis("x", metric_title("step"), axis=_TICKS | WHOLE_NUMBERS)
    x["scale"] = {"nice": False, "padding": 4} | ({"domain": [0, steps]} if steps else {})
    plain = {"x": x, "y": y, "color": look["color"], "detail": {"field": "trial"}}
    layers = [_layer("other", {"type": "line", "strokeWidth": 1, "opacity": 0.5, "clip": True}, plain)]
    if raw:
        faint = {"type": "line", "strokeWidth": 1, "opacity": RAW_OPACITY, "clip": True}
        layers.append(_layer("raw", faint, plain | {"order": {"field": "n"}}))
    layers.append(_layer("bold", {"type": "line", "strokeWidth": 2, "clip": True}, plain | look))
    if not raw:
        layers.append(_layer("bold", {"type": "circle", "size": 30, "opacity": 1, "clip": True}, plain))
    layers += [_layer("ended", cross(), plain), *_crosshair(metric, x, y, look["color"])]
    return finish(layers, params=[{"name": end, "value": 1} for end in _AXIS_ENDS])


def _crosshair(metric: str, x: Spec, y: Spec, color: Spec) -> list[Spec]:
    """Follow the pointer with a line at the nearest point, named with its trial."""
    near: Spec = {"type": "point", "nearest": True, "on": "pointermove", "clear": "pointerout"}
    at_pointer = {"transform": [{"filter": {"param": "pointed", "empty": False}}]}
    dot = {"type": "circle", "size": 70, "opacity": 1, "clip": True}
    everywhere = _layer("every", {"type": "circle", "size": 1, "opacity": 0, "clip": True}, {"x": x, "y": y})
    everywhere["encoding"]["tooltip"] = _tooltip(metric)
    return [
        _layer("every", {"type": "rule", "color": INK, "strokeDash": [2, 3]}, {"x": x}) | at_pointer,
        _layer("every", dot, {"x": x, "y": y, "color": color}) | at_pointer,
        everywhere | {"params": [{"name": "pointed", "select": near}]},
    ]


def _memory_lines(*, gpu: bool) -> Spec:
    """Draw memory over time in GB: the process, and what Torch allocated on the GPU."""
    encoding = {
        "x": _axis("x", tr("time (min)"), axis=_TICKS),
        "y": _axis("y", tr("memory (GB)"), scale={"zero": True}),
    }
    names = {"rss_bytes": tr("process"), "device_allocated_bytes": tr("GPU")}
    words = (
        " : ".join(f"datum.label === {json.dumps(name)} ? {json.dumps(word)}" for name, word in names.items()) + " : ''"
    )
    legend = {"title": None, "orient": "top", "labelExpr": words} if gpu else None
    dash = {"field": "trial", "type": "nominal", "sort": list(names), "legend": legend}
    faint = {"type": "line", "strokeWidth": 1, "opacity": RAW_OPACITY, "color": INK}
    layers = [
        _layer("raw", faint, encoding | {"order": {"field": "n"}, "detail": {"field": "trial"}}),
        _layer("bold", {"type": "line", "strokeWidth": 2, "color": INK}, encoding | {"strokeDash": dash}),
    ]
    return finish(layers)


def _layer(rows: str, mark: Spec, encoding: Spec) -> Spec:
    """Leave the rows to the page, which fills them in under this name."""
    return {"data": {"name": f"{rows}_rows"}, "mark": mark, "encoding": encoding}


def _axis(field: str, title: str, **more: Spec) -> Spec:
    return {"field": field, "type": "quantitative", "title": title, **more}


def _tooltip(metric: str) -> list[Spec]:
    return [
        {"field": "rank", "type": "nominal", "title": metric_title("rank")},
        {"field": "targets", "type": "nominal", "title": tr("target modules")},
        {"field": "alpha", "type": "nominal", "title": tr("alpha")},
        {"field": "rate", "type": "nominal", "title": metric_title("learning_rate")},
        {"field": "seed", "type": "nominal", "title": tr("seed")},
        {"field": "x", "type": "quantitative", "title": metric_title("step"), "format": ",d"},
        {"field": "y", "type": "quantitative", "title": metric_title(metric), "format": ".4f"},
    ]

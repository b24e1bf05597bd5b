"""Charts of the page: those of live lines, whose rows the browser fills in, and the report's."""

import json
from collections.abc import Sequence
from typing import Any

from lorascope.analysis import StudyData, StudySummary
from lorascope.charts.registry import make_charts
from lorascope.charts.vega import INK, RAW_OPACITY, WHOLE_NUMBERS, Spec, color_of_rank, cross, finish
from lorascope.text.language import tr
from lorascope.text.metrics import metric_title
from lorascope.web.snapshot import Snapshot

ChartPart = dict[str, Any]
"""A chart as it is sent to the page; ``lines`` names the series that the browser draws into it."""
_TICKS = {"tickCount": 6, "labelOverlap": "greedy", "labelSeparation": 6}
_AXIS_ENDS = ("bottom", "top")
"""Parameters for the ends of the loss axis, which the browser sets from the lines it shows."""
_LIVE = ("train_loss", "eval_loss", "memory_over_time")
"""Charts of the report that live lines replace."""


def summary_charts(data: StudyData, summary: StudySummary) -> list[ChartPart]:
    """Return the report's charts except those that live lines replace."""
    return [
        _chart(chart.name, chart.title, chart.caption, chart.page_spec)
        for chart in make_charts(data, summary).values()
        if chart.name not in _LIVE
    ]


def live_charts(snapshot: Snapshot) -> list[ChartPart]:
    """Return the charts of training loss, held-out loss and process memory, without rows."""
    if not snapshot.trials:
        return []
    ranks = sorted(snapshot.spec.ranks)
    beyond = tr("Losses far above the start are cut off.")
    raw = tr("Bold: exponential average over a twentieth of the run. Faint, for up to 6 lines: each step.")
    base = tr("Step 0 is the base model before training.")
    train, held_out = _loss_lines("train_loss", ranks, raw=True), _loss_lines("eval_loss", ranks, raw=False)
    charts = [
        _chart("train_loss", tr("Training loss by step"), f"{raw} {beyond}", train, "train"),
        _chart("eval_loss", tr("Held-out loss by step"), f"{base} {beyond}", held_out, "eval"),
    ]
    if snapshot.sample is not None:
        caption = tr("The whole process over its running time. Faint: lowest and highest reading.")
        spec = _memory_lines(gpu=snapshot.sample.device_allocated_bytes is not None)
        charts.append(_chart("process_memory", tr("Memory of the process"), caption, spec, "memory"))
    return charts


def _chart(name: str, title: str, caption: str, spec: Spec, lines: str | None = None) -> ChartPart:
    return {"name": name, "title": title, "caption": caption, "spec": spec, "lines": lines}


def _loss_lines(metric: str, ranks: Sequence[int], *, raw: bool) -> Spec:
    """Draw a line for each trial in the colour of its rank, and a cross where it ended early."""
    bottom, top = ({"expr": end} for end in _AXIS_ENDS)
    y = _axis("y", metric_title(metric), scale={"domainMin": bottom, "domainMax": top, "nice": False, "zero": False})
    x = _axis("x", metric_title("step"), axis=_TICKS | WHOLE_NUMBERS)
    encoding = {"x": x, "y": y, "color": color_of_rank(ranks), "detail": {"field": "trial"}}
    layers = [_layer("bold", {"type": "line", "strokeWidth": 2, "clip": True}, encoding)]
    if raw:
        faint = {"type": "line", "strokeWidth": 1, "opacity": RAW_OPACITY, "clip": True}
        layers.insert(0, _layer("raw", faint, encoding | {"order": {"field": "n"}}))
    else:
        tips = {"tooltip": _tooltip(metric)}
        layers.append(_layer("bold", {"type": "circle", "size": 30, "opacity": 1, "clip": True}, encoding | tips))
        x["scale"] = {"nice": False, "padding": 4}  # so that the first and the last circle are whole
    layers.append(_layer("ended", cross(), encoding))
    return finish(layers, params=[{"name": end, "value": 1} for end in _AXIS_ENDS])


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
        {"field": "trial", "type": "nominal", "title": tr("trial")},
        {"field": "x", "type": "quantitative", "title": metric_title("step")},
        {"field": "y", "type": "quantitative", "title": metric_title(metric), "format": ".4f"},
    ]

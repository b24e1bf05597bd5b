"""The page's charts of lines that grow: specifications without rows, which the page fills in as they come."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lorascope.charts.vega import INK, RAW_OPACITY, WHOLE_NUMBERS, Spec, color_of_rank, cross, finish
from lorascope.text.language import tr
from lorascope.text.metrics import metric_title
from lorascope.web.snapshot import Look

Part = dict[str, Any]
"""A chart as it is sent to the page."""
_TICKS = {"tickCount": 6, "labelOverlap": "greedy", "labelSeparation": 6}
ENDS = ("bottom", "top")
"""Parameters that hold the ends of the axis of losses, which the page sets from the lines it shows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """One chart for the page."""

    name: str
    title: str
    caption: str
    spec: Spec
    lines: str | None = None
    """Which lines the page draws into it; None where the rows are in the specification."""

    def part(self) -> Part:
        """Return what is sent."""
        return {"name": self.name, "title": self.title, "caption": self.caption, "spec": self.spec, "lines": self.lines}


def line_charts(look: Look) -> list[Part]:
    """Make the charts of training loss, held-out loss and memory of the process."""
    ranks = sorted(look.spec.ranks)
    beyond = tr("Losses far above the start are cut off.")
    raw = tr("Bold: exponential average over a twentieth of the run. Faint, for up to 6 lines: each step.")
    base = tr("Step 0 is the base model before training.")
    charts = [
        Chart(
            name="train_loss",
            title=tr("Training loss by step"),
            caption=f"{raw} {beyond}",
            spec=_loss_lines("train_loss", ranks, raw=True),
            lines="train",
        ),
        Chart(
            name="eval_loss",
            title=tr("Held-out loss by step"),
            caption=f"{base} {beyond}",
            spec=_loss_lines("eval_loss", ranks, raw=False),
            lines="eval",
        ),
    ]
    if look.sample is not None:
        charts.append(
            Chart(
                name="process_memory",
                title=tr("Memory of the process"),
                caption=tr("Of the whole process, over the time it was at work. Faint: lowest and highest reading."),
                spec=_memory_lines(gpu=look.sample.device_allocated_bytes is not None),
                lines="memory",
            )
        )
    return [chart.part() for chart in charts]


def _loss_lines(metric: str, ranks: Sequence[int], *, raw: bool) -> Spec:
    """Draw a line for each trial in the colour of its rank, and a cross where it ended early."""
    bottom, top = ({"expr": end} for end in ENDS)
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
    layers.append(_layer("ended", cross(), encoding))
    return finish(layers, params=[{"name": end, "value": 1} for end in ENDS])


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

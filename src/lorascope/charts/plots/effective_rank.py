"""Effective rank of the largest rank's adapter, layer by layer."""

from collections.abc import Iterator
from dataclasses import dataclass

from lorascope.analysis import StudyData, StudySummary
from lorascope.analysis.adapters.usage import effective_rank, examined_trials, module_kind
from lorascope.charts.chart import Chart
from lorascope.charts.vega import WHOLE_NUMBERS, Spec, finish
from lorascope.text.language import tr
from lorascope.text.metrics import metric_title

_KIND_COLORS = ("#b0417a", "#4f8a1f", "#7a7f8c", "#9a5b3c", "#2f8fa8", "#8a6fd1", "#a8862a")
"""None of them is the colour of a rank; all have a contrast of 3:1 on white and on the dark page."""
_SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "stroke")


@dataclass(frozen=True, kw_only=True, slots=True)
class UseByLayer:
    """Effective rank of each layer of one adapter."""

    top: int
    """Rank of the adapter."""
    kinds: tuple[tuple[str, tuple[float, ...]], ...]
    """Kind of module, and the effective rank in each layer of that kind, in the model's order."""


def charts(study: StudyData, summary: StudySummary) -> Iterator[Chart]:
    """Make the chart where an adapter was examined."""
    use = use_by_layer(study, summary)
    if use is not None:
        title = tr("Effective rank by layer")
        caption = tr(
            "Directions that the update of rank {rank} uses in each layer, from the input to the output.", rank=use.top
        )
        yield Chart(name="effective_rank", section="spectra", title=title, caption=caption, spec=use_by_layer_spec(use))


def use_by_layer(study: StudyData, summary: StudySummary) -> UseByLayer | None:
    """Take the effective ranks of the largest examined rank; None where no adapter was examined."""
    examined = examined_trials(study, summary.ranks, summary.trials)
    if not examined:
        return None
    top = max(examined)
    kinds: dict[str, list[float]] = {}
    for record in study.spectra:
        if record.trial_id == examined[top].trial_id:
            kinds.setdefault(module_kind(record.layer), []).append(effective_rank(record.singular_values))
    if not kinds:
        return None
    return UseByLayer(top=top, kinds=tuple((kind, tuple(values)) for kind, values in kinds.items()))


def use_by_layer_spec(use: UseByLayer) -> Spec:
    """Draw a line for each kind of module over the depth of the model; marks tell kinds apart, too."""
    names = [kind for kind, _ in use.kinds]
    rows = [
        {"module": kind, "layer": depth, "effective": value}
        for kind, values in use.kinds
        for depth, value in enumerate(values)
    ]
    legend = {"title": tr("module"), "orient": "top", "columns": 4}
    colors, shapes = ([choice[i % len(choice)] for i in range(len(names))] for choice in (_KIND_COLORS, _SHAPES))
    module = {"field": "module", "type": "nominal", "sort": names, "legend": legend}
    title = metric_title("effective_rank")
    encoding = {
        "x": {"field": "layer", "type": "quantitative", "title": tr("layer"),
              "axis": WHOLE_NUMBERS},
        "y": {"field": "effective", "type": "quantitative", "title": title, "scale": {"zero": True}},
        "color": module | {"scale": {"domain": names, "range": colors}},
    }  # fmt: skip
    shape = module | {"scale": {"domain": names, "range": shapes}}
    tips = [
        {"field": "module", "title": tr("module")},
        {"field": "layer", "type": "quantitative", "title": tr("layer")},
        {"field": "effective", "type": "quantitative", "format": ".2f", "title": title},
    ]
    data = {"values": rows}
    marks = {"type": "point", "filled": True, "size": 45, "opacity": 1}
    lines: Spec = {"data": data, "mark": {"type": "line", "strokeWidth": 2}, "encoding": encoding}
    return finish([lines, {"data": data, "mark": marks, "encoding": encoding | {"shape": shape, "tooltip": tips}}])

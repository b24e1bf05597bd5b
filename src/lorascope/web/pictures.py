"""The page's charts: lines that grow in the browser, and the report's charts as they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from lorascope.analysis import StudyData, StudySummary
from lorascope.charts.data import eval_loss_by_rank, excess_loss_by_rank
from lorascope.charts.rates import eval_loss_by_rate, loss_by_rate_spec
from lorascope.charts.specs import INK, RAW_OPACITY, Spec, color_of_rank, finish, loss_by_rank_spec
from lorascope.charts.usage import cut_curve, use_by_layer
from lorascope.charts.usage_specs import cut_curve_spec, use_by_layer_spec
from lorascope.language import tr
from lorascope.metrics import METRICS
from lorascope.web.look import Look

_ENDS = ("bottom", "top")
"""Parameters that hold the ends of the axis of losses, which the page sets from the lines it shows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """One chart for the page."""

    name: str
    title: str
    caption: str
    spec: Spec
    lines: str | None = None
    """Which lines the page draws into it; None where the data is in the specification."""

    def part(self) -> dict[str, Any]:
        """Return what is sent."""
        return {"name": self.name, "title": self.title, "caption": self.caption, "spec": self.spec, "lines": self.lines}


def line_charts(look: Look) -> list[dict[str, Any]]:
    """Make the charts that grow: training loss, held-out loss, memory of the process."""
    ranks = sorted(look.spec.ranks)
    beyond = tr("Losses above the start are cut off.")
    charts = [
        Chart(
            name="train_loss",
            title=tr("Training loss by step"),
            caption=tr("Faint: the loss of each step. Bold: its exponential average over a twentieth of the run.")
            + f" {beyond}",
            spec=_loss_lines("train_loss", ranks, raw=True),
            lines="train",
        ),
        Chart(
            name="eval_loss",
            title=tr("Held-out loss by step"),
            caption=tr("Step 0 is the base model before training.") + f" {beyond}",
            spec=_loss_lines("eval_loss", ranks, raw=False),
            lines="eval",
        ),
    ]
    if look.sample is not None:
        caption = tr("Of the whole process, over the time it was at work: mean, and the highest reading.")
        charts.append(
            Chart(
                name="process_memory",
                title=tr("Memory of the process"),
                caption=caption,
                spec=_memory_lines(gpu=look.sample.device_allocated_bytes is not None),
                lines="memory",
            )
        )
    return [chart.part() for chart in charts]


def summary_charts(data: StudyData, summary: StudySummary) -> list[dict[str, Any]]:
    """Take the report's charts of ranks, rates and what adapters were used for."""
    ranks, charts = data.ranks, []
    excess, by_rank, by_rate = excess_loss_by_rank(summary), eval_loss_by_rank(summary), eval_loss_by_rate(summary)
    if excess.points:
        caption = tr("How far each rank is above the best on the same held-out rows; 95% intervals.")
        spec = loss_by_rank_spec(excess, ranks)
        charts.append(
            Chart(name="excess_loss_by_rank", title=tr("Excess over the best rank"), caption=caption, spec=spec)
        )
    if by_rank.points:
        caption = tr("The bar is the 95% interval of each rank by itself; overlapping bars do not mean equal ranks.")
        spec = loss_by_rank_spec(by_rank, ranks)
        charts.append(Chart(name="eval_loss_by_rank", title=tr("Held-out loss by rank"), caption=caption, spec=spec))
    if by_rate:
        caption = tr("A cross is the last loss of a rate that was stopped early or diverged, at most the base model's.")
        spec = loss_by_rate_spec(by_rate, ranks)
        title = tr("Held-out loss by learning rate")
        charts.append(Chart(name="eval_loss_by_rate", title=title, caption=caption, spec=spec))
    return [chart.part() for chart in (*charts, *_usage_charts(data, summary))]


def _usage_charts(data: StudyData, summary: StudySummary) -> list[Chart]:
    charts = []
    cuts, use = cut_curve(summary), use_by_layer(data, summary)
    if cuts is not None:
        caption = tr("Line: the largest adapter cut to smaller ranks after training. Diamonds: trained at their rank.")
        title = tr("Rank {rank} cut after training", rank=cuts.top)
        charts.append(Chart(name="cut_loss", title=title, caption=caption, spec=cut_curve_spec(cuts, data.ranks)))
    if use is not None:
        caption = tr("Directions that the largest adapter's update uses in each layer, from the input to the output.")
        title = tr("Effective rank by layer")
        charts.append(Chart(name="effective_rank", title=title, caption=caption, spec=use_by_layer_spec(use)))
    return charts


def _loss_lines(metric: str, ranks: Sequence[int], *, raw: bool) -> Spec:
    """Draw a line for each trial in the colour of its rank, and a cross where it ended early."""
    x = alt.X("x:Q", title=METRICS["step"].title, axis=alt.Axis(tickMinStep=1, format="~d", tickCount=6))
    bottom, top = map(alt.ExprRef, _ENDS)
    y = alt.Y("y:Q", title=METRICS[metric].title, scale=alt.Scale(domainMin=bottom, domainMax=top, nice=False))
    color = color_of_rank(ranks)
    bold = alt.Chart(_named("bold")).encode(x=x, y=y, color=color, detail="trial:N")
    layers = [bold.mark_line(strokeWidth=2, clip=True)]
    if raw:
        faint = alt.Chart(_named("raw")).mark_line(strokeWidth=1, opacity=RAW_OPACITY, clip=True)
        layers.insert(0, faint.encode(x=x, y=y, color=color, detail="trial:N", order="n:Q"))
    else:
        layers.append(bold.mark_circle(size=30, opacity=1, clip=True).encode(tooltip=_tooltip(metric)))
    cross = alt.Chart(_named("ended")).mark_point(shape="cross", angle=45, size=140, filled=True, opacity=1)
    layers.append(cross.encode(x=x, y=y, color=color))
    return finish(alt.LayerChart(layer=layers).add_params(*(alt.param(name=end, value=1.0) for end in _ENDS)))


def _tooltip(metric: str) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("trial:N", title=tr("trial")),
        alt.Tooltip("x:Q", title=METRICS["step"].title),
        alt.Tooltip("y:Q", title=METRICS[metric].title, format=".4f"),
    ]


def _memory_lines(*, gpu: bool) -> Spec:
    """Draw memory over time in GB: the process, and what Torch allocated on the GPU."""
    x = alt.X("x:Q", title=tr("time (min)"), axis=alt.Axis(tickCount=6))
    y = alt.Y("y:Q", title=tr("memory (GB)"), scale=alt.Scale(zero=True))
    dash = alt.StrokeDash("trial:N", title=None, legend=alt.Legend() if gpu else None)
    faint = alt.Chart(_named("raw")).mark_line(strokeWidth=1, opacity=RAW_OPACITY, color=INK)
    bold = alt.Chart(_named("bold")).mark_line(strokeWidth=2, color=INK)
    layers = [
        faint.encode(x=x, y=y, detail="trial:N", order="n:Q"),
        bold.encode(x=x, y=y, strokeDash=dash),
    ]
    return finish(alt.LayerChart(layer=layers))


def _named(name: str) -> alt.NamedData:
    """Leave the rows to the page, which fills them in under this name."""
    return alt.NamedData(name=f"{name}_rows")  # type: ignore[no-untyped-call]  # altair's classes have no types

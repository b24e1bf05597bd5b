"""Training and held-out loss by step: a curve for each rank."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lorascope.analysis import StudyData, StudySummary
from lorascope.analysis.summary import RankSection, TrialSection
from lorascope.charts import vega
from lorascope.charts.chart import Chart
from lorascope.charts.downsample import Floats, group_ends, group_sums, keep_peaks, smooth
from lorascope.charts.label_layout import spread
from lorascope.charts.vega import Rows, Spec
from lorascope.records import UNSUCCESSFUL
from lorascope.store.columns import StepColumns
from lorascope.text.language import tr
from lorascope.text.metrics import metric_title

MAX_POINTS = 600
"""Points of one curve; more than a chart has pixels only make the file large."""
MAX_OTHER_POINTS = 100
"""Points of a curve that is drawn faintly behind the others."""
MAX_HOVER_POINTS = 120
"""Points of a curve that answer the pointer."""

Along = Literal["step", "tokens", "seconds"]
TakeCurve = Callable[[StudyData, TrialSection, RankSection, int], "Curve | None"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Loss of one trial over steps."""

    rank: int
    steps: tuple[int, ...]
    losses: tuple[float, ...]
    """Nats a token, finite."""
    smoothed: tuple[float, ...]
    """The same, smoothed; equal to ``losses`` where there is nothing to smooth."""
    ended_early: bool
    """True where the trial diverged, ran out of memory or failed after the last point."""
    trial_id: str = ""
    tokens: tuple[int, ...] = ()
    """Tokens trained on up to each point."""
    seconds: tuple[float, ...] = ()
    """Time of the rank alone up to each point, from its measured step; empty where it was not measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossByStep:
    """Curves of one loss, one for each rank."""

    metric: str
    """Name in ``METRICS``."""
    curves: tuple[Curve, ...]
    others: tuple[Curve, ...] = ()
    """Trials at other learning rates and seeds."""

    @property
    def smoothed(self) -> bool:
        """True if any curve was smoothed."""
        return any(curve.losses != curve.smoothed for curve in self.curves)


def charts(study: StudyData, summary: StudySummary) -> Iterator[Chart]:
    """Make the charts of training loss and held-out loss."""
    training = train_loss_by_step(study, summary)
    if training.curves:
        caption = (
            tr("Faint: the loss of each step. Bold: its exponential average over a twentieth of the run.")
            if training.smoothed
            else tr("The loss of each step.")
        )
        yield _chart(training, tr("Training loss by step"), caption, study.ranks)
    held_out = eval_loss_by_step(study, summary)
    if held_out.curves:
        caption = tr("Step 0 is the base model before training.")
        yield _chart(held_out, tr("Held-out loss by step"), caption, study.ranks)


def _chart(data: LossByStep, title: str, caption: str, ranks: tuple[int, ...]) -> Chart:
    if any(curve.ended_early for curve in data.curves):
        caption = f"{caption} {tr('A cross marks a trial that ended early.')}"
    return Chart(
        name=data.metric,
        section="loss_curves",
        title=title,
        caption=caption,
        spec=loss_by_step_spec(data, ranks),
        interactive_spec=loss_by_step_spec(data, ranks, hover=True),
    )


def train_loss_by_step(study: StudyData, summary: StudySummary) -> LossByStep:
    """Take every rank's training loss at its best learning rate, first seed."""
    return _loss_by_step("train_loss", _train_curve, study, summary)


def eval_loss_by_step(study: StudyData, summary: StudySummary) -> LossByStep:
    """Take the held-out losses of the same trials."""
    return _loss_by_step("eval_loss", _eval_curve, study, summary)


def _loss_by_step(metric: str, curve: TakeCurve, study: StudyData, summary: StudySummary) -> LossByStep:
    shown: list[Curve | None] = []
    others: list[Curve | None] = []
    for rank in summary.ranks:
        of_rank = [trial for trial in summary.trials if trial.rank == rank.rank]
        at_alpha = [trial for trial in of_rank if trial.lora_alpha == rank.lora_alpha]
        best = [trial for trial in at_alpha if trial.learning_rate == rank.best_learning_rate and trial.eval_loss] or [
            trial for trial in of_rank if len(study.steps[trial.trial_id]) or study.evaluations[trial.trial_id]
        ]
        shown += [curve(study, trial, rank, MAX_POINTS) for trial in best[:1]]
        others += [curve(study, trial, rank, MAX_OTHER_POINTS) for trial in of_rank if trial not in best[:1]]
    return LossByStep(metric=metric, curves=tuple(filter(None, shown)), others=tuple(filter(None, others)))


def _train_curve(study: StudyData, trial: TrialSection, rank: RankSection, most: int) -> Curve | None:
    steps = study.steps[trial.trial_id]
    finite = steps.with_loss
    if not len(finite):
        return None
    kept = keep_peaks(finite.losses, most)
    smoothed = _smoothed(finite)[kept].tolist()
    return _curve(trial, rank, steps, finite.step[kept].tolist(), (finite.losses[kept].tolist(), smoothed))


def _smoothed(steps: StepColumns) -> Floats:
    """Smooth a whole curve; a long one from groups of neighbouring steps, each its nats over its tokens."""
    means = group_sums(steps.nats, MAX_POINTS) / group_sums(steps.target_tokens, MAX_POINTS)
    ends = steps.step[group_ends(len(steps), MAX_POINTS)]
    return np.interp(steps.step, ends, smooth(means.tolist()))


def _eval_curve(study: StudyData, trial: TrialSection, rank: RankSection, most: int) -> Curve | None:
    points = [(record.step, loss) for record in study.evaluations[trial.trial_id] if (loss := record.loss) is not None]
    if not points:
        return None
    kept = keep_peaks(np.array([loss for _, loss in points]), most)
    steps, losses = zip(*(points[place] for place in kept), strict=True)
    return _curve(trial, rank, study.steps[trial.trial_id], steps, (losses, losses))


def _curve(
    trial: TrialSection,
    rank: RankSection,
    done: StepColumns,
    steps: Sequence[int],
    losses: tuple[Sequence[float], Sequence[float]],
) -> Curve:
    """Make the curve of a trial at some of its steps; ``losses`` are single and smoothed."""
    tokens = np.concatenate(([0], np.cumsum(done.tokens)))[np.searchsorted(done.step, steps, side="right")]
    alone = rank.step_seconds
    return Curve(
        rank=trial.rank,
        steps=tuple(steps),
        losses=tuple(losses[0]),
        smoothed=tuple(losses[1]),
        ended_early=trial.outcome in UNSUCCESSFUL,
        trial_id=trial.trial_id,
        tokens=tuple(tokens.tolist()) if len(done) else (),
        seconds=tuple(step * alone for step in steps) if alone is not None else (),
    )


def loss_by_step_spec(data: LossByStep, ranks: Sequence[int], *, along: Along = "step", hover: bool = False) -> Spec:
    """Draw a curve for each rank, raw values faint behind smoothed ones, and a cross where a trial ended early.

    The chart's parameters ``raw`` and ``others`` show the single steps, and the trials that are not a rank's best.

    Args:
        data: the curves.
        ranks: of the study, for colours.
        along: the horizontal axis; every curve must have its tokens or seconds.
        hover: add points that answer the pointer, for a browser.
    """
    low, high, clip = _loss_range(data)
    x: Spec = {"type": "quantitative", "axis": {"tickCount": 8} | (vega.WHOLE_NUMBERS if along == "step" else {})}
    x |= next(choice for choice in _x_axes(data) if choice["field"] == along)
    y: Spec = {"field": "smoothed", "type": "quantitative", "title": metric_title(data.metric)}
    y["scale"] = {"zero": False, "domain": [low, high]}
    layers = [*_line_layers(data, ranks, x, y, clip=clip), *_end_layers(data.curves, x, y)]
    if hover:
        layers.append(_hover_layer(data, x, y))
    for layer in layers:
        layer["encoding"]["color"] = vega.color_of_rank(ranks)
    spec = vega.finish(layers, params=[{"name": "raw", "value": True}, {"name": "others", "value": False}])
    spec["data"] = {"values": [row for curve in data.curves for row in _curve_rows(curve)]}
    spec["usermeta"] = {"x": _x_axes(data), "raw": data.smoothed, "others": bool(data.others)}
    return spec


def _line_layers(data: LossByStep, ranks: Sequence[int], x: Spec, y: Spec, *, clip: bool) -> list[Spec]:
    """Draw single steps, then other trials, then the curves themselves."""
    line: Spec = {"type": "line", "clip": clip}
    layers: list[Spec] = []
    if data.smoothed:
        fields = {"x": x, "y": {**y, "field": "loss"}, "opacity": vega.chosen(vega.RAW_OPACITY)}
        layers.append({"transform": [{"filter": "raw"}], "mark": line | {"strokeWidth": 1}, "encoding": fields})
    if data.others:
        rows = [row | {"trial": curve.trial_id} for curve in data.others for row in _curve_rows(curve)]
        fields = {"x": x, "y": y, "detail": {"field": "trial"}, "opacity": vega.chosen(0.45)}
        faint: Spec = {"data": {"values": rows}, "transform": [{"filter": "others"}], "encoding": fields}
        layers.append(faint | {"mark": line | {"strokeWidth": 1, "clip": True}})
    bold = line | {"strokeWidth": 2} | ({} if data.smoothed else {"point": {"size": 30}})
    fields = {"x": x, "y": y, "strokeDash": vega.dash_of_rank(ranks), "opacity": vega.chosen(1.0)}
    layers.append({"name": "ranks", "params": [vega.legend_choice()], "mark": bold, "encoding": fields})
    return layers


def _curve_rows(curve: Curve) -> Rows:
    columns: dict[str, Sequence[float]] = {"step": curve.steps, "loss": curve.losses, "smoothed": curve.smoothed}
    if curve.tokens:
        columns["tokens"] = curve.tokens
    if curve.seconds:
        columns["seconds"] = curve.seconds
    numbers = zip(*(map(_rounded, column) for column in columns.values()), strict=True)
    return [{"rank": str(curve.rank), **dict(zip(columns, row, strict=True))} for row in numbers]


def _rounded(value: float) -> float:
    """Drop digits that no screen shows; a page holds thousands of these."""
    return value if isinstance(value, int) else float(f"{value:.6g}")


def _loss_range(data: LossByStep) -> tuple[float, float, bool]:
    """Return the lowest and highest loss to show, and whether losses of a diverged trial lie above."""
    losses = [loss for curve in data.curves for loss in (*curve.losses, *curve.smoothed)]
    begin = max((curve.losses[0] for curve in data.curves), default=1.0)
    low, most = min(losses, default=0.0), max(losses, default=1.0)
    high = min(most, 1.5 * begin)
    margin = 0.04 * (high - low) or 0.01
    return float(f"{low - margin:.3g}"), float(f"{high + margin:.3g}"), most > high


def _end_layers(curves: Sequence[Curve], x: Spec, y: Spec) -> list[Spec]:
    """Cross the curves that ended early, and label each at its end without overlaps."""
    low, high = y["scale"]["domain"]
    layers: list[Spec] = []
    ended = [_curve_rows(curve)[-1] for curve in curves if curve.ended_early]
    if ended:
        rows: Rows = [row | {"smoothed": min(row["smoothed"], high)} for row in ended]
        layers.append(
            {"data": {"values": rows}, "mark": vega.cross(), "encoding": {"x": x, "y": y, "opacity": vega.chosen(1.0)}}
        )
    places = spread([curve.smoothed[-1] for curve in curves], low, high, (high - low) * vega.LINE_HEIGHT / vega.HEIGHT)
    rows = [
        {"rank": str(curve.rank), "smoothed": place, "words": f"r {curve.rank}"}
        for curve, place in zip(curves, places, strict=True)
    ]
    mark = {"type": "text", "align": "left", "fontSize": 11, "fontWeight": "bold"}
    fields = {"x": {"value": vega.WIDTH + 5}, "y": y, "text": {"field": "words"}, "opacity": vega.chosen(1.0)}
    return [*layers, {"data": {"values": rows}, "mark": mark, "encoding": fields}]


def _hover_layer(data: LossByStep, x: Spec, y: Spec) -> Spec:
    """Put points with tooltips on the curves, visible under the pointer only."""
    rows = [row for curve in data.curves for row in _curve_rows(curve)[:: -(-len(curve.steps) // MAX_HOVER_POINTS)]]
    seen = {"condition": {"param": "pointed", "empty": False, "value": 1}, "value": 0}
    return {
        "params": [{"name": "pointed", "select": {"type": "point", "on": "pointerover", "clear": "pointerout"}}],
        "data": {"values": rows},
        "mark": {"type": "point", "filled": True, "size": 70, "clip": True},
        "encoding": {"x": x, "y": y, "opacity": seen, "tooltip": _tooltip(data)},
    }


def _x_axes(data: LossByStep) -> list[Spec]:
    """List the fields that the horizontal axis may show; a page offers the choice."""
    choices = [{"field": "step", "title": metric_title("step")}]
    if all(curve.tokens for curve in data.curves):
        choices.append({"field": "tokens", "title": tr("tokens trained on")})
    if all(curve.seconds for curve in data.curves):
        choices.append({"field": "seconds", "title": tr("time of the rank alone (s)")})
    return choices


def _tooltip(data: LossByStep) -> list[Spec]:
    title = metric_title(data.metric)
    tips: list[Spec] = [{"field": "rank", "title": metric_title("rank")}]
    tips += [{"field": choice["field"], "title": choice["title"], "format": ",.6~g"} for choice in _x_axes(data)]
    tips.append({"field": "loss", "title": title, "format": ".4f"})
    if data.smoothed:
        tips.append({"field": "smoothed", "title": tr("smoothed"), "format": ".4f"})
    return [tip | ({"type": "quantitative"} if "format" in tip else {"type": "nominal"}) for tip in tips]

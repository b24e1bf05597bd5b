"""Held-out loss by learning rate: a line for each rank."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from lorascope.analysis import StudyData, StudySummary
from lorascope.analysis.summary import TrialSection
from lorascope.charts.chart import Chart
from lorascope.charts.vega import Rows, Spec, chosen, color_of_rank, cross, dash_of_rank, finish, legend_choice
from lorascope.text.language import tr
from lorascope.text.metrics import metric_title


@dataclass(frozen=True, kw_only=True, slots=True)
class RatePoint:
    """One learning rate of one rank."""

    rank: int
    learning_rate: float
    loss: float
    """Held-out loss, nats a token, mean over seeds; of a rate that stopped, at most the base model's."""
    step: int
    """Step of that loss."""
    stopped: bool
    """True where every trial of this rate ended before its last step."""


def charts(study: StudyData, summary: StudySummary) -> Iterator[Chart]:
    """Make the chart where a rank was given several learning rates."""
    points = eval_loss_by_rate(study, summary)
    if not points:
        return
    step = max(point.step for point in points)
    caption = tr("Mean over seeds, after {step} steps.", step=f"{step:,}")
    if any(point.stopped for point in points):
        caption += " " + tr("×: stopped early or diverged; its last loss, at most the base model's.")
    best = min(points, key=lambda point: (point.stopped, point.loss))
    yield Chart(
        name="eval_loss_by_rate",
        section="learning_rates",
        title=tr("Held-out loss by learning rate"),
        caption=caption,
        finding=tr("Lowest: rank {rank} at {rate}.", rank=best.rank, rate=f"{best.learning_rate:g}"),
        spec=loss_by_rate_spec(points, study.ranks),
    )


def eval_loss_by_rate(study: StudyData, summary: StudySummary) -> tuple[RatePoint, ...]:
    """Take the losses after the last step, or while no trial is there, at the last step that all have reached.

    Losses of different steps are never one line: a trial on its way is left out, and one that stopped is marked.
    None where each rank was given a single rate.
    """
    finished = any(trial.outcome == "finished" for trial in summary.trials)
    step = None if finished else _common_step(study)
    points = []
    for part in summary.ranks:
        for rate in part.learning_rates if len(part.learning_rates) > 1 else ():
            of_rank = [trial for trial in summary.at_best_alpha(summary.trials) if trial.rank == part.rank]
            trials = [trial for trial in of_rank if trial.learning_rate == rate]
            point = _ended(trials) if finished else _at(study, trials, step)
            if point is not None:
                loss, at, stopped = point
                points.append(RatePoint(rank=part.rank, learning_rate=rate, loss=loss, step=at, stopped=stopped))
    return tuple(points)


def _ended(trials: Sequence[TrialSection]) -> tuple[float, int, bool] | None:
    """Return mean loss, step, and whether none finished; None while one is on its way and none has finished."""
    done = [trial for trial in trials if trial.outcome == "finished"]
    if not done and any(trial.outcome in ("not_started", "running") for trial in trials):
        return None
    known = [(t.eval_loss, t.eval_step) for t in done or trials if t.eval_loss is not None and t.eval_step]
    if not known:
        return None
    loss, last = fmean(loss for loss, _ in known), max(step for _, step in known)
    base = max((trial.base_eval_loss for trial in trials if trial.base_eval_loss is not None), default=loss)
    return (loss if done else min(loss, base)), last, not done


def _common_step(study: StudyData) -> int | None:
    reached = [{r.step for r in study.evaluations[trial.trial_id] if r.loss is not None} for trial in study.trials]
    return max(set.intersection(*reached) if reached else (), default=0) or None


def _at(study: StudyData, trials: Sequence[TrialSection], step: int | None) -> tuple[float, int, bool] | None:
    records = [r for trial in trials for r in study.evaluations[trial.trial_id] if r.step == step]
    losses = [loss for record in records if (loss := record.loss) is not None]
    return (fmean(losses), step, False) if losses and step is not None else None


def loss_by_rate_spec(points: Sequence[RatePoint], ranks: Sequence[int]) -> Spec:
    """Draw a line through each rank's rates, and a cross for each rate that stopped."""
    rate, loss = metric_title("learning_rate"), metric_title("eval_loss")
    tried = sorted({point.learning_rate for point in points})
    x = {
        "field": "rate", "type": "quantitative", "title": rate,
        "scale": {"type": "log", "nice": False, "padding": 14}, "axis": {"format": ".2~g", "values": tried},
    }  # fmt: skip
    y = {"field": "loss", "type": "quantitative", "title": loss, "scale": {"zero": False}}
    tips = [
        {"field": "rank", "title": metric_title("rank")},
        {"field": "rate", "type": "quantitative", "format": "~g", "title": rate},
        {"field": "loss", "type": "quantitative", "format": ".4f", "title": loss},
        {"field": "step", "type": "quantitative", "format": ",d", "title": metric_title("step")},
    ]
    encoding = {"x": x, "y": y, "color": color_of_rank(ranks), "opacity": chosen(1.0)}
    line = {"type": "line", "strokeWidth": 2}
    spots = {"type": "point", "filled": True, "size": 55}
    rows: dict[bool, Rows] = {True: [], False: []}
    for point in points:
        rows[point.stopped].append(
            {"rank": str(point.rank), "rate": point.learning_rate, "loss": point.loss, "step": point.step}
        )
    joined = {"values": rows[False]}
    layers: list[Spec] = [
        {"name": "ranks", "params": [legend_choice()], "data": joined,
         "mark": line, "encoding": encoding | {"strokeDash": dash_of_rank(ranks)}},
        {"data": joined, "mark": spots, "encoding": encoding | {"tooltip": tips}},
    ]  # fmt: skip
    if rows[True]:
        crosses = {"data": {"values": rows[True]}, "mark": cross() | {"size": 90}}
        layers.append(crosses | {"encoding": encoding | {"tooltip": tips}})
    return finish(layers)

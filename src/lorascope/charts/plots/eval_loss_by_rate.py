"""Held-out loss by learning rate: a line for each rank."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from lorascope.analysis import StudyData, StudySummary
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
    """Last held-out loss, nats a token, mean over the seeds that got furthest; at most the base model's."""
    finished: bool
    """False where no trial of this rate went to its end."""


def charts(study: StudyData, summary: StudySummary) -> Iterator[Chart]:
    """Make the chart where a rank was given several learning rates."""
    points = eval_loss_by_rate(summary)
    caption = tr("A cross is the last loss of a rate that was stopped early or diverged, at most the base model's.")
    if points:
        yield Chart(
            name="eval_loss_by_rate",
            section="learning_rates",
            title=tr("Held-out loss by learning rate"),
            caption=caption,
            spec=loss_by_rate_spec(points, study.ranks),
        )


def eval_loss_by_rate(summary: StudySummary) -> tuple[RatePoint, ...]:
    """Take the last held-out loss of every rate that has one; none where each rank was given a single rate."""
    points = []
    for part in summary.ranks:
        for rate in part.learning_rates if len(part.learning_rates) > 1 else ():
            trials = [
                t for t in summary.at_best_alpha(summary.trials) if (t.rank, t.learning_rate) == (part.rank, rate)
            ]
            ended = [t for t in trials if t.outcome == "finished"]
            losses = [t.eval_loss for t in ended or trials if t.eval_loss is not None]
            if losses:
                base = max((t.base_eval_loss for t in trials if t.base_eval_loss is not None), default=max(losses))
                points.append(
                    RatePoint(rank=part.rank, learning_rate=rate, loss=min(fmean(losses), base), finished=bool(ended))
                )
    return tuple(points)


def loss_by_rate_spec(points: Sequence[RatePoint], ranks: Sequence[int]) -> Spec:
    """Draw a line through each rank's finished rates, and a cross at the last loss of every other."""
    rate, loss = metric_title("learning_rate"), metric_title("eval_loss")
    tried = sorted({point.learning_rate for point in points})
    x = {
        "field": "rate", "type": "quantitative", "title": rate,
        "scale": {"type": "log", "nice": False, "padding": 14}, "axis": {"format": "~g", "values": tried},
    }  # fmt: skip
    y = {"field": "loss", "type": "quantitative", "title": loss, "scale": {"zero": False}}
    tips = [
        {"field": "rank", "title": metric_title("rank")},
        {"field": "rate", "type": "quantitative", "format": "~g", "title": rate},
        {"field": "loss", "type": "quantitative", "format": ".4f", "title": loss},
    ]
    encoding = {"x": x, "y": y, "color": color_of_rank(ranks), "opacity": chosen(1.0)}
    line = {"type": "line", "strokeWidth": 2}
    spots = {"type": "point", "filled": True, "size": 55}
    rows: dict[bool, Rows] = {True: [], False: []}
    for point in points:
        rows[point.finished].append({"rank": str(point.rank), "rate": point.learning_rate, "loss": point.loss})
    ended = {"values": rows[True]}
    layers: list[Spec] = [
        {"name": "ranks", "params": [legend_choice()], "data": ended,
         "mark": line, "encoding": encoding | {"strokeDash": dash_of_rank(ranks)}},
        {"data": ended, "mark": spots, "encoding": encoding | {"tooltip": tips}},
    ]  # fmt: skip
    if rows[False]:
        crosses = {"data": {"values": rows[False]}, "mark": cross() | {"size": 90}}
        layers.append(crosses | {"encoding": encoding | {"tooltip": tips}})
    return finish(layers)

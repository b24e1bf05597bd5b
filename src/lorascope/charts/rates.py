"""Held-out loss against learning rate: how each rank's best rate was found."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import altair as alt

from lorascope.analysis import StudySummary
from lorascope.charts.specs import Spec, color_of_rank, finish, inline
from lorascope.metrics import METRICS


@dataclass(frozen=True, kw_only=True, slots=True)
class RatePoint:
    """One learning rate of one rank."""

    rank: int
    learning_rate: float
    loss: float
    """Last held-out loss, nats a token, mean over the seeds that got furthest; at most the base model's."""
    finished: bool
    """False where no trial of this rate went to its end."""


def eval_loss_by_rate(summary: StudySummary) -> tuple[RatePoint, ...]:
    """Take the last held-out loss of every rate that has one; none where each rank was given a single rate."""
    points = []
    for part in summary.ranks:
        for rate in part.learning_rates if len(part.learning_rates) > 1 else ():
            trials = [t for t in summary.trials if (t.rank, t.learning_rate) == (part.rank, rate)]
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
    rows = [
        {"rank": str(point.rank), "rate": point.learning_rate, "loss": point.loss, "finished": point.finished}
        for point in points
    ]
    x = alt.X("rate:Q", title=METRICS["learning_rate"].title, scale=alt.Scale(type="log"), axis=alt.Axis(format="~g"))
    y = alt.Y("loss:Q", title=METRICS["eval_loss"].title, scale=alt.Scale(zero=False))
    layers = []
    for finished in (True, False):
        chosen = [row for row in rows if row["finished"] == finished]
        chart = alt.Chart(inline(chosen))
        drawn = (
            chart.mark_line(strokeWidth=2, point=True)
            if finished
            else chart.mark_point(shape="cross", angle=45, size=90, filled=True, opacity=1)
        )
        if chosen:
            layers.append(drawn.encode(x=x, y=y, color=color_of_rank(ranks)))
    return finish(alt.LayerChart(layer=layers))

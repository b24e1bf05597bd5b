"""The report's charts, each with the words that stand for it."""

from dataclasses import dataclass

from lorascope.analysis import StudyData, StudySummary
from lorascope.charts.data import (
    LossBySteps,
    eval_loss_by_rank,
    eval_loss_by_step,
    excess_loss_by_rank,
    train_loss_by_step,
)
from lorascope.charts.rates import eval_loss_by_rate, loss_by_rate_spec
from lorascope.charts.render import to_html, to_png
from lorascope.charts.specs import Spec, loss_by_rank_spec, loss_by_step_spec


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One chart, drawn for both documents."""

    name: str
    """File name without its ending."""
    title: str
    caption: str
    html: str
    png: bytes


def draw(data: StudyData, summary: StudySummary) -> tuple[Picture, ...]:
    """Draw every chart that has something to show."""
    ranks = data.ranks
    pictures = []
    excess = excess_loss_by_rank(summary)
    if excess.points:
        caption = "How far each rank is above the best on the same held-out rows, with the paired 95% interval."
        spec = loss_by_rank_spec(excess, ranks)
        pictures.append(_picture("excess_loss_by_rank", "Excess over the best rank", caption, spec))
    by_rank = eval_loss_by_rank(summary)
    if by_rank.points:
        spec = loss_by_rank_spec(by_rank, ranks)
        caption = "The bar is the 95% interval of each rank by itself; overlapping bars do not mean equal ranks."
        pictures.append(_picture("eval_loss_by_rank", "Held-out loss by rank", caption, spec))
    training = train_loss_by_step(data, summary)
    if training.curves:
        caption = "Faint: the loss of each step. Bold: its exponential average over a twentieth of the run."
        spec = loss_by_step_spec(training, ranks)
        pictures.append(_picture("train_loss", "Training loss by step", caption + _cross(training), spec))
    held_out = eval_loss_by_step(data, summary)
    if held_out.curves:
        caption = "Step 0 is the base model before training."
        spec = loss_by_step_spec(held_out, ranks)
        pictures.append(_picture("eval_loss", "Held-out loss by step", caption + _cross(held_out), spec))
    by_rate = eval_loss_by_rate(summary)
    if by_rate:
        caption = "A cross is the last loss of a rate that was stopped early or diverged, at most the base model's."
        spec = loss_by_rate_spec(by_rate, ranks)
        pictures.append(_picture("eval_loss_by_rate", "Held-out loss by learning rate", caption, spec))
    return tuple(pictures)


def _cross(chart: LossBySteps) -> str:
    return " A cross marks a trial that ended early." if any(curve.ended_early for curve in chart.curves) else ""


def _picture(name: str, title: str, caption: str, spec: Spec) -> Picture:
    html = to_html(spec, label=f"{title}. {caption}")
    return Picture(name=name, title=title, caption=caption, html=html, png=to_png(spec))

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
from lorascope.charts.usage import cut_curve, use_by_layer
from lorascope.charts.usage_specs import cut_curve_spec, use_by_layer_spec


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
        over = "rows and seeds" if summary.verdict.seeds > 1 else "the rows of one seed"
        caption = f"How far each rank is above the best on the same held-out rows; 95% intervals over {over}."
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
    return (*pictures, *_usage_pictures(data, summary))


def _usage_pictures(data: StudyData, summary: StudySummary) -> list[Picture]:
    pictures = []
    cuts = cut_curve(summary)
    if cuts is not None:
        caption = (
            f"Line: the adapter of rank {cuts.top} cut to smaller ranks after training. "
            "Diamonds: adapters trained at their rank."
        )
        spec = cut_curve_spec(cuts, data.ranks)
        pictures.append(_picture("cut_loss", f"Rank {cuts.top} cut after training", caption, spec))
    use = use_by_layer(data, summary)
    if use is not None:
        caption = f"Directions that the update of rank {use.top} uses in each layer, from the input to the output."
        pictures.append(_picture("effective_rank", "Effective rank by layer", caption, use_by_layer_spec(use)))
    return pictures


def _cross(chart: LossBySteps) -> str:
    return " A cross marks a trial that ended early." if any(curve.ended_early for curve in chart.curves) else ""


def _picture(name: str, title: str, caption: str, spec: Spec) -> Picture:
    html = to_html(spec, label=f"{title}. {caption}")
    return Picture(name=name, title=title, caption=caption, html=html, png=to_png(spec))

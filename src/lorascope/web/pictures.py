"""The report's charts of ranks, rates and what adapters were used for, as parts of the page."""

from lorascope.analysis import StudyData, StudySummary
from lorascope.charts.data import eval_loss_by_rank, excess_loss_by_rank
from lorascope.charts.rates import eval_loss_by_rate, loss_by_rate_spec
from lorascope.charts.specs import loss_by_rank_spec
from lorascope.charts.usage import cut_curve, use_by_layer
from lorascope.charts.usage_specs import cut_curve_spec, use_by_layer_spec
from lorascope.language import tr
from lorascope.web.lines import Chart, Part


def summary_charts(data: StudyData, summary: StudySummary) -> list[Part]:
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

"""Forgetting: change of the loss on a generic text, by rank."""

from collections.abc import Iterator, Sequence

from lorascope.analysis import StudyData, StudySummary
from lorascope.charts.chart import Chart
from lorascope.charts.plots.loss_by_rank import RankPoint, rank_points
from lorascope.charts.vega import Spec, color_of_rank, finish, interval_layers, rank_axis
from lorascope.text.language import tr
from lorascope.text.metrics import metric_title


def charts(study: StudyData, summary: StudySummary) -> Iterator[Chart]:
    """Make the chart where the generic text was read."""
    points = forgetting_by_rank(summary)
    if points:
        caption = tr("Below the line, the model predicts the text better than before training. 95% intervals.")
        spec = forgetting_spec(points, study.ranks)
        yield Chart(
            name="forgetting",
            section="forgetting",
            title=tr("Change of the loss on other text"),
            caption=caption,
            spec=spec,
        )


def forgetting_by_rank(summary: StudySummary) -> tuple[RankPoint, ...]:
    """Take how much worse each rank predicts the generic text than the base model does, nats a token."""
    known = [(part.rank, part.forgetting) for part in summary.ranks if part.forgetting is not None]
    return rank_points((rank, part.change, part.change_ci95) for rank, part in known)


def forgetting_spec(points: Sequence[RankPoint], ranks: Sequence[int]) -> Spec:
    """Draw each rank's change, and the base model as a dashed line at 0."""
    rows = [
        {"rank": str(point.rank), "value": point.value, "low": point.low, "high": point.high,
         "end": "high" if point.value >= 0 else "low"}
        for point in points
    ]  # fmt: skip
    x, color, lines = rank_axis(ranks), color_of_rank(ranks, legend=False), [(0.0, tr("base model"))]
    return finish(interval_layers(rows, x, metric_title("forgetting"), color, lines=lines, digits="+.4f"))

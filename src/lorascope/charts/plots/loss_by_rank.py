"""Metrics per held-out row by rank, and the excess loss over the best rank, with 95% intervals."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lorascope.analysis import StudyData, StudySummary
from lorascope.analysis.section import Interval
from lorascope.charts.chart import Chart
from lorascope.charts.vega import Spec, color_of_rank, finish, interval_layers, rank_axis
from lorascope.metrics import ROW_METRICS
from lorascope.text.language import tr
from lorascope.text.metrics import metric_label, metric_title
from lorascope.text.numbers import upper_first


@dataclass(frozen=True, kw_only=True, slots=True)
class RankPoint:
    """One rank's number with its 95% interval."""

    rank: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LossByRank:
    """A loss or a difference of losses against rank."""

    metric: str
    """Name in ``METRICS``."""
    points: tuple[RankPoint, ...]
    tolerance: float | None
    """Line that adequate ranks stay below, for differences."""


def charts(study: StudyData, summary: StudySummary) -> Iterator[Chart]:
    """Make both charts; the excess needs two ranks."""
    excess = excess_loss_by_rank(summary)
    if excess.points:
        caption = tr("How far each rank is above the best on the same held-out rows; 95% intervals over the rows.")
        if summary.verdict.seeds > 1:
            caption = tr(
                "How far each rank is above the best on the same held-out rows; 95% intervals over rows and seeds."
            )
        title, spec = tr("Excess over the best rank"), loss_by_rank_spec(excess, study.ranks)
        yield Chart(name="excess_loss_by_rank", section="larger_ranks", title=title, caption=caption, spec=spec)
    caption = tr("The bar is the 95% interval of each rank by itself; overlapping bars do not mean equal ranks.")
    for metric in ROW_METRICS:
        by_rank = metric_by_rank(summary, metric)
        if by_rank.points:
            title = tr("{metric} by rank", metric=upper_first(metric_label(metric)))
            spec = loss_by_rank_spec(by_rank, study.ranks)
            yield Chart(name=f"{metric}_by_rank", section="larger_ranks", title=title, caption=caption, spec=spec)


def metric_by_rank(summary: StudySummary, metric: str) -> LossByRank:
    """Take every rank's value of a metric per held-out row, and its own interval."""
    points = rank_points((part.rank, getattr(part, metric), getattr(part, f"{metric}_ci95")) for part in summary.ranks)
    return LossByRank(metric=metric, points=points, tolerance=None)


def excess_loss_by_rank(summary: StudySummary) -> LossByRank:
    """Take every rank's excess over the best and its paired interval; no points where nothing is compared."""
    points = rank_points((part.rank, part.excess_loss, part.excess_loss_ci95) for part in summary.ranks)
    return LossByRank(metric="excess_loss", points=points if len(points) > 1 else (), tolerance=summary.study.tolerance)


def rank_points(values: Iterable[tuple[int, float | None, Interval | None]]) -> tuple[RankPoint, ...]:
    """Keep the ranks that have both a value and an interval."""
    return tuple(
        RankPoint(rank=rank, value=value, low=interval[0], high=interval[1])
        for rank, value, interval in values
        if value is not None and interval is not None
    )


def loss_by_rank_spec(data: LossByRank, ranks: Sequence[int]) -> Spec:
    """Draw a point and its interval for each rank, and the tolerance as a dashed line where there is one."""
    tolerance = data.tolerance
    rows = [
        {"rank": str(point.rank), "value": point.value, "low": point.low, "high": point.high,
         "end": "low" if tolerance is not None and point.high <= tolerance else "high"}
        for point in data.points
    ]  # fmt: skip
    lines = [] if tolerance is None else [(tolerance, tr("tolerance"))]
    color = color_of_rank(ranks, legend=False)
    return finish(interval_layers(rows, rank_axis(ranks), metric_title(data.metric), color, lines=lines))

"""A chart that no report has: seeds by rank. Data, specification and words in one module, as in charts/plots."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lorascope.analysis import StudyData, StudySummary
from lorascope.charts.chart import Chart
from lorascope.charts.vega import Spec, color_of_rank, finish, rank_axis


@dataclass(frozen=True, kw_only=True, slots=True)
class Seeds:
    """Seeds of one rank."""

    rank: int
    count: int


def charts(study: StudyData, summary: StudySummary) -> Iterator[Chart]:
    yield Chart(
        name="seeds_by_rank",
        section="costs",
        title="Seeds by rank",
        caption="How many seeds each rank was trained with.",
        spec=seeds_spec(seeds_by_rank(summary), study.ranks),
    )


def seeds_by_rank(summary: StudySummary) -> tuple[Seeds, ...]:
    return tuple(Seeds(rank=part.rank, count=part.seeds) for part in summary.ranks)


def seeds_spec(points: Sequence[Seeds], ranks: Sequence[int]) -> Spec:
    rows = [{"rank": str(point.rank), "seeds": point.count} for point in points]
    y = {"field": "seeds", "type": "quantitative", "title": "seeds"}
    encoding = {"x": rank_axis(ranks), "y": y, "color": color_of_rank(ranks, legend=False)}
    return finish([{"data": {"values": rows}, "mark": {"type": "bar"}, "encoding": encoding}])

"""Trade-offs: excess loss against runtime and against peak memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lorascope.analysis import StudyData, StudySummary
from lorascope.charts import vega
from lorascope.charts.chart import Chart
from lorascope.charts.vega import Spec
from lorascope.text.language import tr
from lorascope.text.metrics import metric_title
from lorascope.units import to_megabytes


@dataclass(frozen=True, kw_only=True, slots=True)
class TradeOff:
    """A rank's excess over the best rank, with its 95% interval, and its cost."""

    rank: int
    excess: float
    low: float
    high: float
    cost: float
    pareto: bool
    """True where no other rank is as good in loss, time of a step and peak memory and better in one of them."""


def charts(study: StudyData, summary: StudySummary) -> Iterator[Chart]:
    """Make both charts where costs were measured."""
    caption = tr("Filled: Pareto-optimal. Hollow: another rank is at least as good in loss, time and memory.")
    by_time, by_memory = loss_against_runtime(summary), loss_against_memory(summary)
    divisor, unit = vega.time_unit(max((point.cost for point in by_time), default=0.0))
    for points, name, title, x_title, scale in (
        (by_memory, "memory", tr("Loss against memory"), metric_title("peak_memory_bytes", unit="MB"), 1.0),
        (by_time, "time", tr("Loss against time"), metric_title("runtime_seconds", unit=unit), divisor),
    ):
        if points:
            spec = trade_off_spec(points, x_title, summary.study.tolerance, study.ranks, divisor=scale)
            yield Chart(name=f"loss_against_{name}", section="trade_offs", title=title, caption=caption, spec=spec)


def loss_against_runtime(summary: StudySummary) -> tuple[TradeOff, ...]:
    """Pair each rank's excess with the time of training it alone, in seconds."""
    return _trade_offs(summary, {part.rank: part.runtime_seconds for part in summary.ranks})


def loss_against_memory(summary: StudySummary) -> tuple[TradeOff, ...]:
    """Pair each rank's excess with its peak memory, in MB."""
    peaks = {part.rank: part.peak_memory_bytes for part in summary.ranks}
    return _trade_offs(summary, {rank: None if peak is None else to_megabytes(peak) for rank, peak in peaks.items()})


def _trade_offs(summary: StudySummary, costs: Mapping[int, float | None]) -> tuple[TradeOff, ...]:
    points = []
    for part in summary.ranks:
        cost = costs[part.rank]
        if part.excess_loss is not None and part.excess_loss_ci95 is not None and cost is not None:
            low, high = part.excess_loss_ci95
            on_front = part.pareto is True
            points.append(
                TradeOff(rank=part.rank, excess=part.excess_loss, low=low, high=high, cost=cost, pareto=on_front)
            )
    return tuple(points) if len(points) > 1 else ()


def trade_off_spec(
    points: Sequence[TradeOff], x_title: str, tolerance: float, ranks: Sequence[int], *, divisor: float = 1.0
) -> Spec:
    """Draw each rank at its cost, divided by ``divisor`` and from 0, and its excess; filled in the Pareto set."""
    x = {"field": "cost", "type": "quantitative", "title": x_title, "axis": {"tickCount": 8},
         "scale": {"zero": True, "domainMin": 0}}  # fmt: skip
    y = {"field": "low", "type": "quantitative", "title": metric_title("excess_loss"),
         "scale": {"zero": False, "padding": 8}}  # fmt: skip
    rows = [
        {"rank": str(point.rank), "cost": point.cost / divisor, "pareto": point.pareto,
         "value": point.excess, "low": point.low, "high": point.high}
        for point in points
    ]  # fmt: skip
    color = vega.color_of_rank(ranks)
    tips = [
        {"field": "rank", "title": metric_title("rank")},
        {"field": "cost", "type": "quantitative", "title": x_title, "format": ",.4~g"},
        {"field": "value", "type": "quantitative", "title": metric_title("excess_loss"), "format": ".4f"},
    ]
    value = {**y, "field": "value"}
    layers: list[Spec] = [
        {"data": {"values": rows}, "mark": {"type": "rule", "strokeWidth": 1.5},
         "encoding": {"x": x, "y": y, "y2": {"field": "high"}, "color": color}},
        *(
            {"data": {"values": [row for row in rows if row["pareto"] == filled]},
             "mark": {"type": "point", "size": 90, "filled": filled, "opacity": 1, "strokeWidth": 2},
             "encoding": {"x": x, "y": value, "color": color, "tooltip": tips}}
            for filled in (True, False)
        ),
        *vega.dashed_line(tolerance, tr("tolerance")),
    ]  # fmt: skip
    return vega.finish(layers)

"""Peak memory of each rank alone, by part."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lorascope.analysis import StudyData, StudySummary
from lorascope.analysis.summary import RankSection
from lorascope.charts.chart import Chart
from lorascope.charts.vega import Spec, finish, rank_axis, text_above
from lorascope.text.language import tr
from lorascope.text.metrics import metric_title
from lorascope.units import format_bytes, from_megabytes, to_megabytes

STEP_PHASES = ("forward", "backward", "optimizer")
_PART_COLORS = ("#c3c7d0", "#8f96a3", "#2f8fa8", "#b0417a", "#4f8a1f", "#9a8fd1", "#d8a35d")
"""From the part that all ranks share to the rest; they also differ in lightness."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryShare:
    """One part of the memory at a rank's peak."""

    rank: int
    part: str
    """Its name in the language in use."""
    megabytes: float


def charts(study: StudyData, summary: StudySummary) -> Iterator[Chart]:
    """Make the chart where memory was measured."""
    shares = memory_split(study, summary)
    if shares:
        caption = tr("What the memory at each rank's peak was, one rank alone. 1 MB is 10^6 bytes.")
        spec = memory_split_spec(shares, study.ranks)
        yield Chart(name="memory_split", section="costs", title=tr("Peak memory by part"), caption=caption, spec=spec)


def memory_split(study: StudyData, summary: StudySummary) -> tuple[MemoryShare, ...]:
    """Split each rank's peak of a step: measured phase by phase, else as far as sizes tell."""
    shares = []
    for part in summary.ranks:
        known = _measured_split(part) or _counted_split(study, part.rank)
        shares += [MemoryShare(rank=part.rank, part=name, megabytes=to_megabytes(size)) for name, size in known.items()]
    return tuple(shares)


def _measured_split(part: RankSection) -> dict[str, int]:
    """Take the phase of a step in which memory is highest."""
    phases = [split for split in part.cost.split if split.phase in STEP_PHASES] if part.cost else []
    if not phases:
        return {}
    peak = max(phases, key=lambda split: split.total)
    return {
        tr("program"): peak.program,
        tr("base model"): peak.base,
        tr("adapter"): peak.adapter,
        tr("gradient"): peak.gradient,
        tr("optimizer"): peak.optimizer,
        tr("activations"): peak.activations,
        tr("the rest"): max(0, peak.rest),
    }


def _counted_split(study: StudyData, rank: int) -> dict[str, int]:
    cost, adapter = study.costs.get(rank), study.adapters.get(rank)
    if cost is None or adapter is None:
        return {}
    known = {
        tr("base model and program"): cost.base_bytes,
        tr("adapter"): adapter.parameter_bytes,
        tr("gradient"): adapter.gradient_bytes,
        tr("optimizer"): adapter.optimizer_bytes,
    }
    return known | {tr("activations and the rest"): max(0, cost.peak_bytes - sum(known.values()))}


def memory_split_spec(shares: Sequence[MemoryShare], ranks: Sequence[int]) -> Spec:
    """Stack each rank's parts from the bottom, with the sum above."""
    parts = list(dict.fromkeys(share.part for share in shares))
    rows = [
        {"rank": str(share.rank), "part": share.part, "order": parts.index(share.part), "value": share.megabytes,
         "words": format_bytes(from_megabytes(share.megabytes))}
        for share in shares
    ]  # fmt: skip
    sums = {rank: sum(share.megabytes for share in shares if share.rank == rank) for rank in ranks}
    tops = [
        {"rank": str(rank), "value": size, "words": format_bytes(from_megabytes(size))}
        for rank, size in sums.items()
        if size
    ]
    x = rank_axis(ranks)
    y = {"field": "value", "type": "quantitative", "title": metric_title("memory")}
    legend = {"title": None, "orient": "top", "columns": 3}
    scale = {"domain": parts, "range": list(_PART_COLORS[: len(parts)])}
    color = {"field": "part", "type": "nominal", "sort": parts, "scale": scale, "legend": legend}
    tips = [{"field": "rank", "title": metric_title("rank")}, {"field": "part", "title": tr("part")},
            {"field": "words", "title": tr("memory")}]  # fmt: skip
    bar = {"type": "bar", "width": {"band": 0.6}}
    layers: list[Spec] = [
        {"data": {"values": rows}, "mark": bar,
         "encoding": {"x": x, "y": y, "color": color, "order": {"field": "order"}, "tooltip": tips}},
        text_above(tops, x, y),
    ]  # fmt: skip
    return finish(layers)

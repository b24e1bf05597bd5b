"""What the measurements of the ranks alone say, in sentences; nothing where too little was measured."""

import math
from collections.abc import Mapping, Sequence

from lorascope.analysis.cost.schema import CostReadingsSection, CostSection
from lorascope.analysis.summary import RankSection
from lorascope.text.language import tr

_STEPS = 4
"""Fewer measured steps say nothing of how much they vary."""
_NEAR = 0.02
"""Ranks whose bandwidth shares lie this close, as a share, do not differ."""


def read_costs(ranks: Sequence[RankSection], apart: float) -> CostReadingsSection | None:
    """Read the ranks that were measured in turns; None without any.

    Args:
        ranks: what was measured.
        apart: by what share turns of one rank differed in time at most; ranks that differ by less are not told apart.
            Infinite where a rank took one turn only.
    """
    costs = {part.rank: part.cost for part in ranks if part.cost is not None}
    if not costs:
        return None
    time_spread, memory_spread = _time_spread(ranks, costs), _memory_spread(ranks)
    leaning = _leaning(ranks, costs)
    steadiest, leans_most = _steadiest(time_spread, apart), _highest(leaning, max(_NEAR, apart))
    texts = [
        _steadiest_time(time_spread, steadiest, apart) if len(costs) > 1 else "",
        _steadiest_memory(memory_spread),
        _bandwidth(leaning, leans_most, apart),
        *(_bottleneck(rank, cost) for rank, cost in costs.items()),
    ]
    return CostReadingsSection(
        steadiest_time_rank=steadiest,
        steadiest_memory_rank=_lowest(memory_spread),
        bandwidth_rank=leans_most,
        texts=tuple(filter(None, texts)),
    )


def _time_spread(ranks: Sequence[RankSection], costs: Mapping[int, CostSection]) -> dict[int, float]:
    """Return the distance of the quartiles as a share of the median, of ranks with enough steps."""
    seconds = {part.rank: part.step_seconds for part in ranks}
    return {
        rank: cost.step_seconds_spread / median
        for rank, cost in costs.items()
        if cost.measured_steps >= _STEPS and cost.step_seconds_spread is not None and (median := seconds[rank])
    }


def _memory_spread(ranks: Sequence[RankSection]) -> dict[int, float]:
    """Return the standard deviation behind the start as a share of the mean."""
    return {
        part.rank: part.memory.later_std / part.memory.later_mean
        for part in ranks
        if part.memory is not None and part.memory.later_std is not None and part.memory.later_mean
    }


def _leaning(ranks: Sequence[RankSection], costs: Mapping[int, CostSection]) -> dict[int, float]:
    """Return the share of time for memory: the GPU's own count where all ranks have it, else from bytes and rate."""
    counted = {part.rank: part.gpu.memory_utilization_percent for part in ranks if part.gpu is not None}
    known = {rank: percent / 100 for rank, percent in counted.items() if percent is not None}
    if known and known.keys() == costs.keys():
        return known
    return {rank: cost.bandwidth_share for rank, cost in costs.items() if cost.bandwidth_share is not None}


def _lowest(values: Mapping[int, float]) -> int | None:
    return min(values, key=lambda rank: values[rank]) if len(values) > 1 else None


def _steadiest(spread: Mapping[int, float], apart: float) -> int | None:
    """Return the rank whose steps vary least, if its turns varied less than it stands out."""
    least = sorted(spread.values())[:2]
    return _lowest(spread) if len(least) == 2 and least[1] - least[0] > apart else None


def _highest(values: Mapping[int, float], near: float) -> int | None:
    """Return the rank with the highest value, if it stands out by that share."""
    if len(values) < 2:
        return None
    top, second = sorted(values.values(), reverse=True)[:2]
    return max(values, key=lambda rank: values[rank]) if top > second * (1 + near) else None


def _steadiest_time(spread: Mapping[int, float], rank: int | None, apart: float) -> str:
    if len(spread) < 2 or math.isinf(apart):
        return tr("Too few steps were measured to say which rank's steps vary least; --cost full measures more.")
    if rank is None:
        return tr(
            "Which rank's steps vary least cannot be told: one rank's turns differ by {apart:.1%} themselves.",
            apart=apart,
        )
    return tr(
        "Rank {rank} has the steadiest steps: the middle half of them lies within {spread:.1%} of their median.",
        rank=rank,
        spread=spread[rank],
    )


def _steadiest_memory(spread: Mapping[int, float]) -> str:
    rank = _lowest(spread)
    if rank is None:
        return ""
    return tr(
        "Rank {rank} has the steadiest memory: after the warm-up it varies by {spread:.1%} of its mean.",
        rank=rank,
        spread=spread[rank],
    )


def _bandwidth(leaning: Mapping[int, float], rank: int | None, apart: float) -> str:
    if rank is not None:
        return tr(
            "Rank {rank} leans most on memory bandwidth: {share:.1%} of its step.", rank=rank, share=leaning[rank]
        )
    if len(leaning) < 2 or math.isinf(apart):
        return ""
    if _highest(leaning, _NEAR) is None:
        return tr("The ranks lean on memory bandwidth alike.")
    return tr(
        "Which rank leans most on memory bandwidth cannot be told: one rank's turns differ by {apart:.1%} in time.",
        apart=apart,
    )


def _bottleneck(rank: int, cost: CostSection) -> str:
    if cost.arithmetic_share is None or cost.bandwidth_share is None:
        return ""
    values = {"rank": rank, "arithmetic": cost.arithmetic_share, "bandwidth": cost.bandwidth_share}
    if cost.bottleneck == "arithmetic":
        return tr(
            "Rank {rank} is held up by arithmetic: at the rate of a large product its matrix products take "
            "{arithmetic:.0%} of the step, moving their operands {bandwidth:.0%}.",
            **values,
        )
    if cost.bottleneck == "bandwidth":
        return tr(
            "Rank {rank} is held up by memory bandwidth: moving the operands of its matrix products takes "
            "{bandwidth:.0%} of the step, their arithmetic {arithmetic:.0%}.",
            **values,
        )
    return tr(
        "Rank {rank} is held up by overhead: at this machine's best rates its matrix products would take "
        "{arithmetic:.0%} of the step and moving their operands {bandwidth:.0%}.",
        **values,
    )

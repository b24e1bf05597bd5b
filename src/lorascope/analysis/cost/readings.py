"""Findings from the solo runs: steadiness, use of memory bandwidth, bottlenecks."""

import math
from collections.abc import Mapping, Sequence

from lorascope.analysis.cost.schema import Bottleneck, CostReadingsSection, CostSection
from lorascope.analysis.summary import RankSection
from lorascope.message import Message

_STEPS = 4
"""Fewer measured steps do not show how much they vary."""
_NEAR = 0.02
"""Ranks whose bandwidth shares lie this close, as a share, do not differ."""

_BOTTLENECKS: dict[Bottleneck, str] = {
    "arithmetic": "costs.arithmetic", "bandwidth": "costs.bandwidth", "overhead": "costs.overhead",
}  # fmt: skip


def read_costs(ranks: Sequence[RankSection], apart: float) -> CostReadingsSection | None:
    """Compare the ranks that were measured; None without any.

    Args:
        ranks: the ranks with their costs.
        apart: largest share by which solo runs of one rank differed in time; smaller differences between ranks are
            noise. Infinite where a rank has one solo run only.
    """
    costs = {part.rank: part.cost for part in ranks if part.cost is not None}
    if not costs:
        return None
    time_spread, memory_spread = _time_spread(ranks, costs), _memory_spread(ranks)
    shares = _bandwidth_shares(ranks, costs)
    steadiest, highest = _steadiest(time_spread, apart), _highest(shares, max(_NEAR, apart))
    found = [
        _steadiest_time(time_spread, steadiest, apart) if len(costs) > 1 else None,
        _steadiest_memory(memory_spread),
        _bandwidth(shares, highest, apart),
        *(_bottleneck(rank, cost) for rank, cost in costs.items()),
    ]
    return CostReadingsSection(
        steadiest_time_rank=steadiest,
        steadiest_memory_rank=_lowest(memory_spread),
        bandwidth_rank=highest,
        texts=tuple(message for message in found if message is not None),
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


def _bandwidth_shares(ranks: Sequence[RankSection], costs: Mapping[int, CostSection]) -> dict[int, float]:
    """Return the share of time for memory: the GPU's own count where all ranks have it, else from bytes and rate."""
    counted = {part.rank: part.gpu.memory_utilization_percent for part in ranks if part.gpu is not None}
    known = {rank: percent / 100 for rank, percent in counted.items() if percent is not None}
    if known and known.keys() == costs.keys():
        return known
    return {rank: cost.bandwidth_share for rank, cost in costs.items() if cost.bandwidth_share is not None}


def _lowest(values: Mapping[int, float]) -> int | None:
    return min(values, key=lambda rank: values[rank]) if len(values) > 1 else None


def _steadiest(spread: Mapping[int, float], apart: float) -> int | None:
    """Return the rank whose steps vary least, if it stands out by more than solo runs of one rank differ."""
    least = sorted(spread.values())[:2]
    return _lowest(spread) if len(least) == 2 and least[1] - least[0] > apart else None


def _highest(values: Mapping[int, float], near: float) -> int | None:
    """Return the rank with the highest value, if it stands out by that share."""
    if len(values) < 2:
        return None
    top, second = sorted(values.values(), reverse=True)[:2]
    return max(values, key=lambda rank: values[rank]) if top > second * (1 + near) else None


def _steadiest_time(spread: Mapping[int, float], rank: int | None, apart: float) -> Message:
    if len(spread) < 2 or math.isinf(apart):
        return Message("costs.too_few_steps")
    if rank is None:
        return Message("costs.steadiest_time_unknown", apart=apart)
    return Message("costs.steadiest_time", rank=rank, spread=spread[rank])


def _steadiest_memory(spread: Mapping[int, float]) -> Message | None:
    rank = _lowest(spread)
    return None if rank is None else Message("costs.steadiest_memory", rank=rank, spread=spread[rank])


def _bandwidth(shares: Mapping[int, float], rank: int | None, apart: float) -> Message | None:
    if rank is not None:
        return Message("costs.bandwidth_rank", rank=rank, share=shares[rank])
    if len(shares) < 2 or math.isinf(apart):
        return None
    if _highest(shares, _NEAR) is None:
        return Message("costs.bandwidth_alike")
    return Message("costs.bandwidth_unknown", apart=apart)


def _bottleneck(rank: int, cost: CostSection) -> Message | None:
    if cost.bottleneck is None:
        return None
    code = _BOTTLENECKS[cost.bottleneck]
    return Message(code, rank=rank, arithmetic=cost.arithmetic_share, bandwidth=cost.bandwidth_share)

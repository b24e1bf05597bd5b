"""Recommendations among the ranks within the limits on memory, time and adapter size."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from lorascope.analysis.summary import RankSection
from lorascope.analysis.verdict.schema import AdviceSection, RecommendationSection
from lorascope.message import Message, Sentences, Value
from lorascope.spec.limits import Limit, RankCost, within, worst_share

_CODES = {
    "max_memory": ("limit.peak_memory", "limit.peak_memory_unknown"),
    "max_seconds": ("limit.training_alone", "limit.training_alone_unknown"),
    "max_adapter_mb": ("limit.adapter", "limit.adapter_unknown"),
}
"""By field: of a known amount, and of one that was not measured."""


class RankedCost(RankCost, Protocol):
    """The cost of a rank that is named."""

    @property
    def rank(self) -> int:
        """The rank."""


def describe(limit: Limit, cost: RankCost) -> Message:
    """State what a rank takes and the limit."""
    amount, (known, unknown) = limit.taken(cost), _CODES[limit.field]
    return Message(unknown, most=limit.most) if amount is None else Message(known, amount=amount, most=limit.most)


def none_within(limits: Sequence[Limit], costs: Sequence[RankedCost]) -> Message:
    """State that no rank is within all limits, and which comes nearest."""
    nearest = min(costs, key=lambda cost: worst_share(limits, cost))
    over = tuple(describe(limit, nearest) for limit in limits if limit.share(nearest) > 1)
    return Message("limit.none_within", rank=nearest.rank, over=over)


def recommend_within(
    limits: Sequence[Limit],
    ranks: Mapping[int, RankSection],
    free: RecommendationSection,
    advise: Callable[[Sequence[int]], RecommendationSection],
) -> RecommendationSection:
    """Recommend among the ranks within the limits; the constrained choice is the efficient one among them.

    Args:
        limits: at least one.
        ranks: ranks that can be recommended at all.
        free: the recommendation without limits.
        advise: recommends among some of the ranks.
    """
    allowed = [rank for rank, part in ranks.items() if within(limits, part)]
    if not allowed:
        why = none_within(limits, list(ranks.values()))
        left = AdviceSection(rank=None, reason=why, change=_change(limits, ranks, free))
        return RecommendationSection(quality=left, efficient=left, constrained=left)
    advice = free if len(allowed) == len(ranks) else advise(allowed)
    quality, efficient = (_among(part, len(allowed), len(ranks)) for part in (advice.quality, advice.efficient))
    constrained = efficient
    if efficient.rank is not None:
        chosen = ranks[efficient.rank]
        reasons: tuple[Value, ...] = (efficient.reason, *_price(chosen), *(describe(limit, chosen) for limit in limits))
        change = (*efficient.change, *_change(limits, ranks, free))
        reason = Message("advice.reasons", reasons=reasons)
        constrained = AdviceSection(rank=chosen.rank, reason=reason, change=change)
    return RecommendationSection(quality=quality, efficient=efficient, constrained=constrained)


def _among(advice: AdviceSection, allowed: int, total: int) -> AdviceSection:
    """Add the number of ranks that a rank was chosen from."""
    if allowed == total:
        return advice
    if allowed == 1:
        reason = Message("advice.only_within_limits")
    else:
        reason = Message("advice.among_within_limits", count=allowed, reason=advice.reason)
    return advice.model_copy(update={"reason": reason})


def _price(part: RankSection) -> Sentences:
    """State the excess of the rank over the lowest loss of all ranks, at any cost."""
    if not part.excess_loss or part.excess_loss_ci95 is None:
        return ()
    return (Message("advice.above_lowest_of_all", excess=(part.excess_loss, *part.excess_loss_ci95)),)


def _change(limits: Sequence[Limit], ranks: Mapping[int, RankSection], free: RecommendationSection) -> Sentences:
    """State what the ranks beyond the limits would need."""
    beyond = {
        rank: tuple(describe(limit, part) for limit in limits if limit.share(part) > 1)
        for rank, part in ranks.items()
        if not within(limits, part)
    }
    if not beyond:
        return (Message("change.all_within_limits"),)
    needs = tuple(Message("change.beyond_by", rank=rank, what=what) for rank, what in beyond.items())
    text = Message("change.beyond_limits", needs=needs)
    if not free.efficient.rank:
        return (text,)
    return text, Message("change.without_limits", rank=free.efficient.rank)

"""Recommendations among the ranks within the limits on memory, time and adapter size."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from lorascope.analysis.summary import RankSection
from lorascope.analysis.verdict.schema import RecommendationSection
from lorascope.message import Message
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


def with_limits(
    advice: RecommendationSection, limits: Sequence[Limit], ranks: Mapping[int, RankSection]
) -> RecommendationSection:
    """Say of the rank to use what it takes of each limit, and what the ranks beyond the limits would need.

    Args:
        advice: among the ranks within the limits.
        limits: at least one.
        ranks: all that could be recommended without limits.
    """
    if advice.use.rank is None:
        return advice
    taken = tuple(describe(limit, ranks[advice.use.rank]) for limit in limits)
    reason = Message("advice.reasons", reasons=(advice.use.reason, *taken))
    change = (*advice.use.change, beyond_limits(limits, ranks))
    use = advice.use.model_copy(update={"reason": reason, "change": change})
    return advice.model_copy(update={"use": use})


def beyond_limits(limits: Sequence[Limit], ranks: Mapping[int, RankSection]) -> Message:
    """State what the ranks beyond the limits would need."""
    beyond = {
        rank: tuple(describe(limit, part) for limit in limits if limit.share(part) > 1)
        for rank, part in ranks.items()
        if not within(limits, part)
    }
    if not beyond:
        return Message("change.all_within_limits")
    needs = tuple(Message("change.beyond_by", rank=rank, what=what) for rank, what in beyond.items())
    return Message("change.beyond_limits", needs=needs)

"""The limits a user gave on memory, time and size, and the ranks within them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lorascope.analysis.summary import AdviceSection, RankSection, RecommendationSection
from lorascope.spec.limits import Limit, RankCost, within, worst_share
from lorascope.text.language import later, tr
from lorascope.text.numbers import format_seconds, interval
from lorascope.units import format_bytes, to_megabytes


@dataclass(frozen=True, slots=True)
class _Words:
    """How a limit and what it limits are written."""

    label: str
    """In English."""
    shown: Callable[[float], str]
    enough: Callable[[float], str]
    """Writes a limit that the user can give and that an amount stays within."""


class RankedCost(RankCost, Protocol):
    """The cost of a rank that is named."""

    @property
    def rank(self) -> int:
        """The rank."""


def describe(limit: Limit, part: RankCost) -> str:
    """Write what the rank takes and the limit."""
    taken, words = limit.taken(part), _WORDS[limit.field]
    label, most = tr(words.label), words.shown(limit.most)
    if taken is None:
        return tr("{label} not measured (limit {most})", label=label, most=most)
    return tr("{label} {amount} (limit {most})", label=label, amount=words.shown(taken), most=most)


def nearest_text(limits: Sequence[Limit], parts: Sequence[RankedCost]) -> str:
    """Say that no rank is within all limits, and which comes nearest."""
    nearest = min(parts, key=lambda part: worst_share(limits, part))
    over = [describe(limit, nearest) for limit in limits if limit.share(nearest) > 1]
    return tr(
        "no rank is within the limits; rank {rank} comes nearest: {over}", rank=nearest.rank, over=", ".join(over)
    )


def remedy_text(limits: Sequence[Limit], parts: Sequence[RankedCost]) -> str:
    """Say how far the limits would have to be raised for the nearest rank."""
    nearest = min(parts, key=lambda part: worst_share(limits, part))
    raised = " and ".join(
        f"{limit.field} to {_WORDS[limit.field].enough(taken)}"
        for limit in limits
        if limit.exceeded(nearest) and (taken := limit.taken(nearest)) is not None
    )
    return f"raise {raised} and run the same command, or ask for smaller ranks in a new folder"


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
        text = nearest_text(limits, list(ranks.values()))
        left = AdviceSection(rank=None, reason=text[0].upper() + text[1:], change=_change(limits, ranks, free))
        return RecommendationSection(quality=left, efficient=left, constrained=left)
    advice = free if len(allowed) == len(ranks) else advise(allowed)
    quality, efficient = (_among(part, len(allowed), len(ranks)) for part in (advice.quality, advice.efficient))
    constrained = efficient
    if efficient.rank is not None:
        chosen = ranks[efficient.rank]
        reasons = (efficient.reason, *_price(chosen), *(describe(limit, chosen) for limit in limits))
        change = " ".join(filter(None, (efficient.change, _change(limits, ranks, free))))
        constrained = AdviceSection(rank=chosen.rank, reason="; ".join(reasons), change=change)
    return RecommendationSection(quality=quality, efficient=efficient, constrained=constrained)


def _among(advice: AdviceSection, allowed: int, total: int) -> AdviceSection:
    """Say of how many ranks this one was chosen; of a single one there is nothing else to say."""
    if allowed == total:
        return advice
    if allowed == 1:
        reason = tr("the only rank within the limits")
    else:
        reason = tr("of {count} ranks within the limits: {reason}", count=allowed, reason=advice.reason)
    return advice.model_copy(update={"reason": reason})


def _price(part: RankSection) -> tuple[str, ...]:
    """Write what the rank gives up against the lowest loss of all ranks, whatever their cost."""
    if not part.excess_loss or part.excess_loss_ci95 is None:
        return ()
    low, high = part.excess_loss_ci95
    above = interval(part.excess_loss, low, high)
    return (tr("its held-out loss is {excess} above the lowest of all ranks", excess=above),)


def _change(limits: Sequence[Limit], ranks: Mapping[int, RankSection], free: RecommendationSection) -> str:
    """Say what the ranks beyond the limits would need."""
    beyond = {
        rank: ", ".join(describe(limit, part) for limit in limits if limit.share(part) > 1)
        for rank, part in ranks.items()
        if not within(limits, part)
    }
    if not beyond:
        return tr("Every rank is within the limits.")
    needs = "; ".join(tr("rank {rank} by its {what}", rank=rank, what=what) for rank, what in beyond.items())
    text = tr("Beyond the limits: {needs}.", needs=needs)
    if not free.efficient.rank:
        return text
    without = tr("Without limits the efficient choice is rank {rank}.", rank=free.efficient.rank)
    return f"{text} {without}"


def enough_megabytes(n_bytes: float) -> str:
    """Write MB that this many bytes stay within."""
    return f"{math.ceil(to_megabytes(n_bytes) * 1000) / 1000}"


def _enough_memory(n_bytes: float) -> str:
    return f"{math.ceil(to_megabytes(n_bytes))}MB"


def _enough_seconds(seconds: float) -> str:
    return f"{math.ceil(seconds)}"


_WORDS = {
    "max_memory": _Words(later("peak memory"), format_bytes, _enough_memory),
    "max_seconds": _Words(later("training alone"), format_seconds, _enough_seconds),
    "max_adapter_mb": _Words(later("adapter"), format_bytes, enough_megabytes),
}

"""What would change a recommendation, in numbers."""

from lorascope.analysis.ranks import Comparison
from lorascope.analysis.summary import AdvicePart, RecommendationPart
from lorascope.analysis.verdict import adequate_ranks
from lorascope.analysis.wording import nats

_HALVINGS = 40
"""Of the range a tolerance is searched in; leaves it exact to far below a loss's last digit."""


def with_changes(advice: RecommendationPart, comparison: Comparison, tolerance: float) -> RecommendationPart:
    """Add to each recommended rank what would put another in its place."""
    return RecommendationPart(
        quality=_add(advice.quality, _quality(comparison, advice.quality.rank)),
        efficient=_add(advice.efficient, _efficient(comparison, advice.efficient.rank, tolerance)),
        constrained=_add(advice.constrained, _constrained(comparison, advice.constrained.rank, tolerance)),
    )


def needed_tolerance(comparison: Comparison, rank: int) -> float | None:
    """Find the smallest tolerance under which a rank is shown to be adequate; None where none is."""
    low, high = 0.0, 1.01 * max(max(abs(e.low), abs(e.high)) for e in comparison.excess.values())
    if rank not in adequate_ranks(comparison, high):
        return None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if rank in adequate_ranks(comparison, middle):
            high = middle
        else:
            low = middle
    return high


def _quality(comparison: Comparison, rank: int | None) -> str:
    smaller = _smaller(comparison, rank)
    if rank is None or len(comparison.excess) < 2:
        return ""
    parts = []
    if rank != comparison.best:
        parts.append(f"Narrower intervals (more rows, more seeds) may show it to be above rank {comparison.best}.")
    if smaller:
        closest = min(smaller, key=lambda other: comparison.excess[other].low)
        low = comparison.excess[closest].low
        parts.append(f"Rank {closest} takes its place once its interval, now from {nats(low)}, reaches down to 0.")
    return " ".join(parts) or "A smaller rank was not tried."


def _efficient(comparison: Comparison, rank: int | None, tolerance: float) -> str:
    if rank is None or len(comparison.excess) < 2:
        return ""
    parts = []
    for other in _smaller(comparison, rank)[:-3:-1]:
        needed = needed_tolerance(comparison, other)
        if needed is not None and needed > tolerance:
            parts.append(f"Rank {other} is enough from a tolerance of {nats(needed)} on.")
    own = needed_tolerance(comparison, rank)
    if own is not None and own <= tolerance and nats(own) != nats(0):
        parts.append(f"Below a tolerance of {nats(own)} it is no longer shown to be enough.")
    elif own is not None and own > tolerance:
        parts.append(f"It is shown to be enough from a tolerance of {nats(own)} on.")
    return " ".join(parts) or "A smaller rank was not tried."


def _constrained(comparison: Comparison, rank: int | None, tolerance: float) -> str:
    if rank is None or len(comparison.excess) < 2:
        return ""
    parts = []
    for other in _smaller(comparison, rank)[::-1][:1]:
        low = comparison.excess[other].low
        if low > tolerance:
            parts.append(f"Rank {other} takes its place from a tolerance of {nats(low)} on.")
    if rank != comparison.best:
        low = comparison.excess[rank].low
        parts.append(f"It falls out once the lower end of its interval, now {nats(low)}, is above the tolerance.")
    return " ".join(parts) or "A smaller rank was not tried."


def _smaller(comparison: Comparison, rank: int | None) -> list[int]:
    return [other for other in comparison.excess if rank is not None and other < rank]


def _add(advice: AdvicePart, change: str) -> AdvicePart:
    return advice.model_copy(update={"change": change})

"""Sensitivity of a recommendation: the tolerances and ranks that would change it."""

from collections.abc import Callable, Iterator

from lorascope.analysis.estimates.ranks import Comparison
from lorascope.analysis.verdict.claims import claims
from lorascope.analysis.verdict.schema import AdviceSection, RecommendationSection
from lorascope.message import Message

_HALVINGS = 40
"""Steps of the bisection for a tolerance; they leave it exact to far below the last digit of a loss."""

_SHOWN = 0.5e-4
"""A smaller tolerance is 0 in the four decimals of a loss."""

Holds = Callable[[Comparison, int, float], bool]
"""Whether a claim holds for a rank under a tolerance; if it does, it holds under every larger one."""


def is_enough(comparison: Comparison, rank: int, tolerance: float) -> bool:
    """Return True if a rank is shown to be adequate."""
    return claims(comparison.excess, comparison.differences, tolerance)[rank].is_adequate


def may_be_enough(comparison: Comparison, rank: int, tolerance: float) -> bool:
    """Return True if a rank is not shown to be inadequate."""
    return not claims(comparison.excess, comparison.differences, tolerance)[rank].is_inadequate


def with_changes(advice: RecommendationSection, comparison: Comparison, tolerance: float) -> RecommendationSection:
    """Add to each recommended rank what would replace it."""
    if len(comparison.excess) < 2:
        return advice
    return RecommendationSection(
        quality=_add(advice.quality, lambda rank: _quality(comparison, rank)),
        efficient=_add(advice.efficient, lambda rank: _efficient(comparison, rank, tolerance)),
        constrained=_add(advice.constrained, lambda rank: _constrained(comparison, rank, tolerance)),
    )


def needed_tolerance(comparison: Comparison, rank: int, holds: Holds) -> float | None:
    """Find the smallest tolerance under which ``holds``; None where it holds under none."""
    low, high = 0.0, 2 * max(max(abs(excess.low), abs(excess.high)) for excess in comparison.excess.values())
    if not holds(comparison, rank, high):
        return None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if holds(comparison, rank, middle):
            high = middle
        else:
            low = middle
    return high


def _add(advice: AdviceSection, changes: Callable[[int], Iterator[Message]]) -> AdviceSection:
    if advice.rank is None:
        return advice
    found = tuple(changes(advice.rank)) or (Message("change.no_smaller_rank"),)
    return advice.model_copy(update={"change": found})


def _quality(comparison: Comparison, rank: int) -> Iterator[Message]:
    if rank != comparison.best:
        yield Message("change.may_exceed_best", best=comparison.best)
    smaller = _smaller(comparison, rank)
    if smaller:
        closest = min(smaller, key=lambda other: comparison.excess[other].low)
        yield Message("change.lowest_not_above", rank=closest, low=comparison.excess[closest].low)


def _efficient(comparison: Comparison, rank: int, tolerance: float) -> Iterator[Message]:
    for other in _smaller(comparison, rank)[:-3:-1]:
        needed = needed_tolerance(comparison, other, is_enough)
        if needed is not None and needed > tolerance:
            yield Message("change.other_enough_from", rank=other, tolerance=needed)
    own = needed_tolerance(comparison, rank, is_enough)
    if own is not None and own > tolerance:
        yield Message("change.enough_from", tolerance=own)
    elif own is not None and own >= _SHOWN:
        yield Message("change.not_enough_below", tolerance=own)


def _constrained(comparison: Comparison, rank: int, tolerance: float) -> Iterator[Message]:
    for other in _smaller(comparison, rank)[-1:]:
        needed = needed_tolerance(comparison, other, may_be_enough)
        if needed is not None and needed > tolerance:
            yield Message("change.other_from", rank=other, tolerance=needed)
    own = needed_tolerance(comparison, rank, may_be_enough)
    if own is not None and own >= _SHOWN:
        yield Message("change.inadequate_below", tolerance=own)
    elif rank != comparison.best:
        yield Message("change.may_be_inadequate")


def _smaller(comparison: Comparison, rank: int) -> list[int]:
    return [other for other in comparison.excess if other < rank]

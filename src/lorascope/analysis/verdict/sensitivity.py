"""What would change a recommendation, in numbers."""

from collections.abc import Callable

from lorascope.analysis.estimates.ranks import Comparison
from lorascope.analysis.summary import AdviceSection, RecommendationSection
from lorascope.analysis.verdict.claims import claims
from lorascope.text.language import tr
from lorascope.text.numbers import nats

_HALVINGS = 40
"""Of the range a tolerance is searched in; leaves it exact to far below a loss's last digit."""

Holds = Callable[[Comparison, int, float], bool]
"""Whether something holds of a rank under a tolerance; once it does, it does under every larger one."""


def is_enough(comparison: Comparison, rank: int, tolerance: float) -> bool:
    """Say whether a rank is shown to be adequate."""
    return claims(comparison.excess, comparison.differences, tolerance)[rank].is_adequate


def may_be_enough(comparison: Comparison, rank: int, tolerance: float) -> bool:
    """Say whether a rank is not shown to be inadequate."""
    return not claims(comparison.excess, comparison.differences, tolerance)[rank].is_inadequate


def with_changes(advice: RecommendationSection, comparison: Comparison, tolerance: float) -> RecommendationSection:
    """Add to each recommended rank what would put another in its place."""
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


def _add(advice: AdviceSection, change: Callable[[int], list[str]]) -> AdviceSection:
    if advice.rank is None:
        return advice
    return advice.model_copy(update={"change": " ".join(change(advice.rank)) or tr("No smaller rank was tried.")})


def _quality(comparison: Comparison, rank: int) -> list[str]:
    sentences = []
    if rank != comparison.best:
        sentences.append(tr("More rows or seeds may show it to be above rank {best}.", best=comparison.best))
    smaller = _smaller(comparison, rank)
    if smaller:
        closest = min(smaller, key=lambda other: comparison.excess[other].low)
        sentences.append(
            tr(
                "Rank {rank} takes its place once it is not measurably above the lowest; its interval begins at {low}.",
                rank=closest,
                low=nats(comparison.excess[closest].low),
            )
        )
    return sentences


def _efficient(comparison: Comparison, rank: int, tolerance: float) -> list[str]:
    sentences = []
    for other in _smaller(comparison, rank)[:-3:-1]:
        needed = needed_tolerance(comparison, other, is_enough)
        if needed is not None and needed > tolerance:
            sentences.append(
                tr("Rank {rank} is enough from a tolerance of {tolerance} on.", rank=other, tolerance=nats(needed))
            )
    own = needed_tolerance(comparison, rank, is_enough)
    if own is not None and own > tolerance:
        sentences.append(tr("It is shown to be enough from a tolerance of {tolerance} on.", tolerance=nats(own)))
    elif own is not None and nats(own) != nats(0):
        sentences.append(
            tr("Below a tolerance of {tolerance} it is no longer shown to be enough.", tolerance=nats(own))
        )
    return sentences


def _constrained(comparison: Comparison, rank: int, tolerance: float) -> list[str]:
    sentences = []
    for other in _smaller(comparison, rank)[-1:]:
        needed = needed_tolerance(comparison, other, may_be_enough)
        if needed is not None and needed > tolerance:
            sentences.append(
                tr(
                    "Rank {rank} takes its place from a tolerance of {tolerance} on.",
                    rank=other,
                    tolerance=nats(needed),
                )
            )
    own = needed_tolerance(comparison, rank, may_be_enough)
    if own is not None and nats(own) != nats(0):
        sentences.append(
            tr("Below a tolerance of {tolerance} it is shown to be worse than the tolerance.", tolerance=nats(own))
        )
    elif rank != comparison.best:
        sentences.append(tr("More rows or seeds may show it to be worse than the tolerance."))
    return sentences


def _smaller(comparison: Comparison, rank: int) -> list[int]:
    return [other for other in comparison.excess if other < rank]

"""The tolerance under which a rank is shown to be adequate."""

from lorascope.analysis.estimates.ranks import Comparison
from lorascope.analysis.verdict.shown import claims_of

_HALVINGS = 40
"""Steps of the bisection; they leave the tolerance exact to far below the last digit of a loss."""


def needed_tolerance(comparison: Comparison, rank: int) -> float | None:
    """Return the smallest tolerance under which a rank is shown to be adequate; None where it is under none."""
    low, high = 0.0, 2 * max(max(abs(excess.low), abs(excess.high)) for excess in comparison.excess.values())
    if not _is_enough(comparison, rank, high):
        return None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _is_enough(comparison, rank, middle):
            high = middle
        else:
            low = middle
    return high


def _is_enough(comparison: Comparison, rank: int, tolerance: float) -> bool:
    return claims_of(comparison, tolerance)[rank].is_adequate

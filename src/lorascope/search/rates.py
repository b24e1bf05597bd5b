"""Learning rates: those of ``auto`` for a rank, and the next one beyond the edge of a grid."""

import math
from collections.abc import Iterable
from typing import Literal

_START = 1e-3
_START_STRENGTH = 32.0
_FACTOR = 3.0


def automatic_rates(*, rank: int, scale: float) -> tuple[float, ...]:
    """Return three learning rates a factor of 3 apart, around 1e-3 * sqrt(32 / (scale * rank)).

    The output of B A changes by about scale * rank * rate^2 in a step that moves both factors, so that the best rate
    follows (scale * rank)^-1/2: constant in r at a fixed alpha, r^-1/4 for rsLoRA and r^-1/2 at a constant scale, as
    maximal-update analysis has it (muA, arXiv 2602.06204).
    """
    middle = _START * math.sqrt(_START_STRENGTH / (scale * rank))
    # Two significant digits, as rates are part of folder names
    return tuple(float(f"{rate:.1e}") for rate in (middle / _FACTOR, middle, middle * _FACTOR))


def next_rate(tried: Iterable[float], side: Literal["below", "above"]) -> float:
    """Extend two or more rates by one on a side, at the ratio of the last two on that side."""
    edge, neighbour = sorted(tried, reverse=side == "above")[:2]
    return float(f"{edge * edge / neighbour:.12g}")

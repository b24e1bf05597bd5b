"""Student's t distribution: what an estimate with few degrees of freedom needs, without a library for it."""

import math
from statistics import NormalDist

TINY = 1e-300
"""In place of a zero that would be divided by."""


def tail(t: float, degrees: float) -> float:
    """Compute the chance that Student's t is above ``t``.

    DLMF 8.17: with x = degrees / (degrees + t^2), half of the regularised incomplete beta I_x(degrees / 2, 1 / 2).
    """
    x = degrees / (degrees + t * t)
    half = _regularised_beta(degrees / 2, 0.5, x, t * t / (degrees + t * t)) / 2
    return half if t >= 0 else 1 - half


def upper(chance: float, degrees: float) -> float:
    """Find the value that Student's t is above with this chance, below one half.

    Newton's steps from the normal quantile, which lies below: the tail is convex there, so that no step goes too far.
    """
    assert 0 < chance < 0.5
    t = NormalDist().inv_cdf(1 - chance)
    log_scale = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - math.log(degrees * math.pi) / 2
    for _ in range(200):
        density = math.exp(log_scale - (degrees + 1) / 2 * math.log1p(t * t / degrees))
        step = (tail(t, degrees) - chance) / density
        t += step
        if abs(step) <= 1e-7 * t:  # each step squares the error: the next would be in the last digit
            break
    return t


def _regularised_beta(a: float, b: float, x: float, rest: float) -> float:
    """Compute I_x(a, b), with ``rest`` = 1 - x given apart so that a small one keeps its digits."""
    if x <= 0 or rest <= 0:
        return 0.0 if x <= 0 else 1.0
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    if x > (a + 1) / (a + b + 2):
        return 1 - math.exp(log_front) * _fraction(b, a, rest) / b
    return math.exp(log_front) * _fraction(a, b, x) / a


def _fraction(a: float, b: float, x: float) -> float:
    """Evaluate the continued fraction of DLMF 8.17.22 by Lentz's method; it converges fast below its x's mean."""
    c, d = 1.0, 1 / ((1 - (a + b) * x / (a + 1)) or TINY)
    value = d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d, c = 1 / ((1 + even * d) or TINY), (1 + even / c) or TINY
        value *= c * d
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d, c = 1 / ((1 + odd * d) or TINY), (1 + odd / c) or TINY
        value *= c * d
        if abs(c * d - 1) <= 1e-15:
            break
    return value

"""Alpha spending: how much of a chance of error each look at growing data may use.

After Lan and DeMets (Biometrika 70, 1983): the chance spent up to a look is a function of the information there is, so
that neither the number of looks nor their times have to be fixed before. The increments of a standardised difference
between looks are independent (Jennison and Turnbull, Group Sequential Methods, 2000, chapter 11), which gives each look
its nominal level.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr, ndtri

from lorascope.analysis.estimates.losses import Floats
from lorascope.analysis.estimates.paired import LEVEL

POWER = 3
"""Exponent of the spending function: little is spent early, where an estimate of the variance rests on few seeds
(Kim and DeMets, Biometrika 74, 1987)."""
_CELLS = 400


def spent(information: float) -> float:
    """Return the share of the chance of error that may be spent up to this share of the full information."""
    return min(1.0, information) ** POWER


def nominal_shares(information: Sequence[float], chance: float = LEVEL / 2) -> list[float]:
    """Return the share of the chance of error at which each look tests, so that all looks together keep to the whole.

    The smaller a chance of error is, the fewer errors the looks have in common, and the smaller the shares are: shares
    hold for the chance that they are made for and for larger ones.

    Args:
        information: of each look, as a share of what the study can have at most; ascending.
        chance: of an error on one side, over all looks.
    """
    shares: list[float] = []
    open_density: Floats | None = None  # of the score z * sqrt(information), over the looks that did not stop
    scores: Floats = np.zeros(1)
    before = 0.0
    for now in information:
        new = chance * (spent(now) - spent(before))
        if now <= before or new <= 0:  # nothing new was learnt, or nothing may be spent on it
            shares.append(0.0)
            continue
        step = math.sqrt(now - before)
        bound = _bound(open_density, scores, step, new, now)
        shares.append(float(ndtr(-bound / math.sqrt(now))) / chance)
        open_density, scores = _continue(open_density, scores, step, bound, now)
        before = now
    return shares


def _bound(density: Floats | None, scores: Floats, step: float, chance: float, now: float) -> float:
    """Find the score that is passed for the first time at this look with the given chance, by bisection."""
    if density is None:
        return -float(ndtri(chance)) * step
    low, high = 0.0, 40.0 * math.sqrt(now)
    for _ in range(80):
        middle = (low + high) / 2
        passed = float((density * ndtr((scores - middle) / step)).sum())
        low, high = (middle, high) if passed > chance else (low, middle)
    return high


def _continue(density: Floats | None, scores: Floats, step: float, bound: float, now: float) -> tuple[Floats, Floats]:
    """Return the probabilities of the scores, on a grid, of what did not pass the bound."""
    low = -8.0 * math.sqrt(now)
    width = (bound - low) / _CELLS
    grid: Floats = np.asarray(low + width * (np.arange(_CELLS) + 0.5), dtype=np.float64)
    weights, places = (np.ones(1), np.zeros(1)) if density is None else (density, scores)
    spread = np.exp(-0.5 * ((grid[:, None] - places) / step) ** 2) / (step * math.sqrt(2 * math.pi))
    return np.asarray(width * (spread @ weights)), grid

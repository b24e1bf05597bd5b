"""Probabilities about the ranks' losses, for advice where nothing is shown: never for a claim.

With a flat prior on the losses, their posterior is a multivariate t around the estimates (Gelman et al., Bayesian Data
Analysis, section 3.5), whose covariance follows from the variances of all differences.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lorascope.analysis.estimates.ranks import Comparison

DRAWS = 4096
_LEAST_DEGREES = 3.0
"""With fewer the mean of an excess rests on a handful of draws."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """Where a rank stands among the others."""

    chance: float
    """Probability that its loss is within the tolerance of the lowest."""
    regret: float
    """Expected nats a token above the lowest."""


def standings(comparison: Comparison, tolerance: float) -> Mapping[int, Standing]:
    """Return every compared rank's standing, the same for the same comparison."""
    above_DK = _losses(comparison)
    above_DK -= above_DK.min(axis=1, keepdims=True)
    chances, regrets = (above_DK <= tolerance).mean(axis=0), above_DK.mean(axis=0)
    return {
        rank: Standing(chance=float(chances[k]), regret=float(regrets[k])) for k, rank in enumerate(comparison.excess)
    }


def _losses(comparison: Comparison) -> NDArray[np.float64]:
    """Draw the ranks' losses up to a constant, [D, K]."""
    ranks, pairs = tuple(comparison.excess), comparison.differences
    variances_KK = np.array([[pairs[a, b].variance if a != b else 0.0 for b in ranks] for a in ranks])
    centred_KK = np.eye(len(ranks)) - 1 / len(ranks)
    sizes, directions = np.linalg.eigh(-0.5 * centred_KK @ variances_KK @ centred_KK)
    random = np.random.default_rng(0)
    normal_DK = random.standard_normal((DRAWS, len(ranks))) * np.sqrt(np.maximum(sizes, 0)) @ directions.T
    degrees = max(_LEAST_DEGREES, min((found.degrees for found in pairs.values()), default=np.inf))
    spread_D = np.sqrt(degrees / random.chisquare(degrees, DRAWS)) if np.isfinite(degrees) else np.ones(DRAWS)
    values_K = np.array([comparison.excess[rank].value for rank in ranks])
    return np.asarray(values_K + normal_DK * spread_D[:, None])

"""Downsample a long curve without losing its peaks, and smooth it.

Shapes: T points, G groups of neighbours.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def keep_peaks(values_T: Floats, most: int) -> Ints:
    """Find at most ``most`` indices that keep the curve's shape: each group's lowest and highest, and both ends."""
    n_points = len(values_T)
    if n_points <= most:
        return np.arange(n_points)
    edges_G = _edges(n_points, (most - 2) // 2)
    kept = {0, n_points - 1}
    for begin, end in pairwise(edges_G.tolist()):
        group = values_T[begin:end]
        kept |= {begin + int(group.argmin()), begin + int(group.argmax())}
    return np.array(sorted(kept))


def group_sums(values_T: Floats | Ints, groups: int) -> Floats:
    """Sum neighbours in that many groups of nearly equal size, [G]."""
    return np.add.reduceat(values_T, _edges(len(values_T), groups)[:-1]).astype(np.float64)


def group_ends(n_points: int, groups: int) -> Ints:
    """Find the last place of each of these groups, [G]."""
    return _edges(n_points, groups)[1:] - 1


def smooth(losses: Sequence[float], share: float = 1 / 20) -> tuple[float, ...]:
    """Average exponentially over about that share of the points, without bias towards a start value."""
    keep = 1 - 1 / max(len(losses) * share, 1)
    smoothed, total, weight = [], 0.0, 0.0
    for loss in losses:
        total = keep * total + loss
        weight = keep * weight + 1
        smoothed.append(total / weight)
    return tuple(smoothed)


def _edges(n_points: int, groups: int) -> Ints:
    return np.linspace(0, n_points, min(groups, n_points) + 1).astype(np.int64)

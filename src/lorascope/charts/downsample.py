"""Fewer points of a long curve, without losing its peaks.

Shapes: T points, G groups of neighbours.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def keep_peaks(values_T: Floats, most: int) -> Ints:
    """Find at most ``most`` places that keep the curve's look: of each group its lowest and its highest, and both ends.

    All places where there are no more than ``most``.
    """
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


def _edges(n_points: int, groups: int) -> Ints:
    return np.linspace(0, n_points, min(groups, n_points) + 1).astype(np.int64)

"""Noise floor: the difference in loss that another seed alone makes."""

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from lorascope.analysis.estimates.ranks import Comparison, RankChoice
from lorascope.analysis.verdict.schema import NoiseFloorSection


def noise_floor(choices: Mapping[int, RankChoice], comparison: Comparison) -> NoiseFloorSection | None:
    """Compare each rank with itself at another seed, all at its own learning rate; None without two seeds of a rank.

    It is taken on the study's held-out rows, so it includes what a seed does to single rows.
    """
    if comparison.step is None:
        return None
    pairs = [abs(a - b) for choice in choices.values() for a, b in combinations(choice.rows.losses.tolist(), 2)]
    if not pairs:
        return None
    between = [
        float((choices[a].at(seeds).losses - choices[b].at(seeds).losses).var(ddof=1))
        for a, b in combinations(choices, 2)
        if len(seeds := [seed for seed in choices[a].seeds if seed in choices[b].seeds]) > 1
    ]
    return NoiseFloorSection(
        pairs=len(pairs),
        typical=float(np.sqrt(np.mean(np.square(pairs)))),
        largest=max(pairs),
        difference_sd=float(np.sqrt(np.mean(between))) if between else None,
    )

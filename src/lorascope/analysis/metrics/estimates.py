"""Scores of ranks and their differences, with the statistics of the loss; what is higher is better.

Rows of 0 and 1 have intervals of their own (``estimates.shares``). Where almost no row tells two ranks apart, a
variance of other values says nothing, and there is no interval.

Shapes: S seeds, N held-out rows.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy.special import stdtrit

from lorascope.analysis.estimates.losses import Floats
from lorascope.analysis.estimates.paired import LEVEL, SeedRows, Uncertain, differences, losses
from lorascope.analysis.estimates.shares import is_binary, share_differences, share_levels
from lorascope.analysis.section import Interval
from lorascope.analysis.verdict.claims import pair_chances

FEWEST_DIFFERENT = 10
"""Rows that have to differ for a variance of values other than 0 and 1 to be believed."""
POWER = 0.8
"""Chance that a study of the rows that are advised shows a difference."""
Deficits = Mapping[tuple[int, int], Uncertain]
"""The second rank's score minus the first's, every pair both ways: by how much the first is below."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """A score and its 95% interval, None where the rows support none."""

    value: float
    interval: Interval | None


def estimate_levels(ranks: Mapping[int, SeedRows]) -> dict[int, Level]:
    """Estimate each rank's score; ranks with equally many seeds share what the seeds move."""
    found: dict[int, Level] = {}
    for seeds in {len(rows.nats) for rows in ranks.values()}:
        own = {rank: rows for rank, rows in ranks.items() if len(rows.nats) == seeds}
        found |= dict(zip(own, _levels(list(own.values())), strict=True))
    return {rank: found[rank] for rank in ranks}


def _levels(ranks: Sequence[SeedRows]) -> list[Level]:
    if len(ranks[0].target_tokens) < 2:
        return [Level(value=rows.loss, interval=None) for rows in ranks]
    binary = is_binary(ranks)
    estimates = share_levels(ranks) if binary else losses(ranks)
    pairs = zip(ranks, estimates, strict=True)
    return [_level(rows, one, believed=binary or _is_believed(_rates(rows))) for rows, one in pairs]


def _level(rows: SeedRows, estimate: Uncertain, *, believed: bool) -> Level:
    interval = estimate.interval()
    return Level(value=rows.loss, interval=within(interval.low, interval.high, least=0.0) if believed else None)


def within(low: float, high: float, *, least: float) -> Interval | None:
    """Cut an interval at the least and the most that there can be; None where it is infinite."""
    return (max(least, low), min(1.0, high)) if math.isfinite(low) and math.isfinite(high) else None


def deficits(ranks: Mapping[int, SeedRows]) -> Deficits:
    """Estimate by how much each rank is below each other one, all of the same rows and seeds."""
    names, rows = list(ranks), list(ranks.values())
    binary = is_binary(rows)
    found = share_differences(rows) if binary else differences(rows)
    below: dict[tuple[int, int], Uncertain] = {}
    for i, j in combinations(range(len(names)), 2):
        one = found[i, j]
        if not binary and not _is_believed(_rates(rows[i]) - _rates(rows[j]), center=0.0):
            one = replace(one, variance=math.inf)
        below |= {(names[i], names[j]): one.turned(), (names[j], names[i]): one}
    return below


def shown_below(best: int, below: Deficits) -> dict[int, bool]:
    """Return for each other rank whether it is shown to be below the best, with a chance of error of 5% over all."""
    ranks = list(dict.fromkeys(rank for rank, _ in below))
    chances = pair_chances(below, 0.0)
    return {
        rank: chances.get((rank, best), 1.0) <= LEVEL and below[rank, best].interval().low > 0
        for rank in ranks
        if rank != best
    }


def rows_to_show(deficit: float, found: Uncertain, rows: int, pairs: int) -> int | None:
    """Return the rows on which a difference of this size is shown in four studies of five; None where none would do.

    The rows' part of the variance falls with their number, the seeds' part and the degrees of freedom stay.

    Args:
        deficit: the observed difference.
        found: its uncertainty on the rows there are.
        rows: how many those are.
        pairs: of ranks, over all of which the chance of error holds.
    """
    if deficit <= 0 or not math.isfinite(found.variance):
        return None
    reach = -float(stdtrit(found.degrees, LEVEL / 2 / pairs)) - float(stdtrit(found.degrees, 1 - POWER))
    of_seeds = found.seeds_variance - found.shared_variance
    allowed = (deficit / reach) ** 2 - of_seeds
    needed = math.ceil(rows * (found.variance - of_seeds) / allowed) if allowed > 0 else 0
    return needed if needed > rows else None


def _rates(rows: SeedRows) -> Floats:
    """Score of each row by itself, mean over the seeds, [N]."""
    return np.asarray(rows.nats.mean(axis=0) / rows.target_tokens)


def _is_believed(values_N: Floats, center: float | None = None) -> bool:
    middle = float(np.median(values_N)) if center is None else center
    return int(np.count_nonzero(values_N != middle)) >= FEWEST_DIFFERENT

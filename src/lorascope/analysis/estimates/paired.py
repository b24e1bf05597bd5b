"""Losses and differences between ranks, with a variance that covers the held-out rows and the seeds.

Shapes: K ranks, S seeds, N held-out rows with target tokens. Ranks are paired twice: by row, and by seed, whose trials
share the order of the training rows and nested initial adapters.

The variance of a difference has two parts. That of the rows comes from deleting one row at a time (the jackknife of a
ratio: Miller, Biometrika 61, 1974). That of the seeds comes from how the difference moves from seed to seed; with few
seeds one difference cannot tell, so all pairs of ranks share one estimate, the rank-by-seed residual of a randomised
block design (Cochran and Cox, Experimental Designs, chapter 4). Seeds scored on the same few rows also differ because
of those rows; that share is measured and not counted twice.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy.special import stdtr, stdtrit

from lorascope.analysis.estimates.losses import Estimate, Floats

LEVEL = 0.05
"""Chance of error of an interval (half of it on each side) and of each family of tests."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Uncertain:
    """An estimated loss or difference, in nats a token, with its variance and degrees of freedom."""

    value: float
    variance: float
    degrees: float
    seeds_variance: float = 0.0
    """The part of ``variance`` that falls with the number of seeds."""
    shared_variance: float = 0.0
    """The part of ``seeds_variance`` that falls with the number of rows as well: what a seed does to single rows."""
    share: float = 1.0
    """Share of the chance of error of a bound that this look at the data may use; 1 where the data are read once."""
    pair_share: float = 1.0
    """The same of a two-sided test beside those of all other pairs."""

    def interval(self, *, below: float = LEVEL / 2, above: float = LEVEL / 2) -> Estimate:
        """Reach as far as a t interval that misses the truth with these chances on either side, over all looks."""
        error, share = math.sqrt(self.variance), self.share
        low, high = (
            -error * float(stdtrit(self.degrees, share * chance)) if error else 0.0 for chance in (below, above)
        )
        return Estimate(value=self.value, low=self.value - low, high=self.value + high)

    def turned(self) -> "Uncertain":
        """Take the difference the other way round."""
        return replace(self, value=-self.value)

    def chance_below(self, margin: float) -> float:
        """Compute the one-sided p-value of "at least ``margin``": small where it is shown to be below."""
        return self._tail(margin - self.value, self.share)

    def chance_within(self, margin: float) -> float:
        """Compute the two-sided p-value of "no further from 0 than ``margin``": small where it is shown to be."""
        return min(1.0, 2 * self._tail(abs(self.value) - margin, self.pair_share))

    def _tail(self, distance: float, share: float) -> float:
        """Return the chance of a smaller value by at least this distance, corrected for the number of looks."""
        if self.variance == 0:
            return 0.0 if distance > 0 else 1.0
        return min(1.0, float(stdtr(self.degrees, -distance / math.sqrt(self.variance))) / share)


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedRows:
    """Held-out nats of one rank, seed by seed and row by row."""

    nats: Floats
    """[S, N]"""
    target_tokens: Floats
    """[N]"""

    @property
    def losses(self) -> Floats:
        """Nats a token of each seed, [S]."""
        return np.asarray([math.fsum(row) for row in self.nats]) / float(self.target_tokens.sum())

    @property
    def loss(self) -> float:
        """Nats a token, meaned over the seeds."""
        return float(self.losses.mean())

    def influences(self) -> Floats:
        """Say how much the loss of each seed falls when one row is deleted, [S, N], less its mean over the rows.

        Linear in the nats: the influences of a difference are the differences of influences.
        """
        total = self.target_tokens.sum()
        falls_SN = (self.nats - self.losses[:, None] * self.target_tokens) / (total - self.target_tokens)
        return np.asarray(falls_SN - falls_SN.mean(axis=1, keepdims=True))


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """Variance components of one quantity, each of its mean over the seeds."""

    rows: float
    """From the choice of rows; holds ``shared`` too."""
    seeds: float
    """Seen from seed to seed; holds ``shared`` too, as all seeds are scored on the same rows. 0 with one seed."""
    shared: float
    """From what one seed does to single rows."""


def losses(ranks: Sequence[SeedRows]) -> list[Uncertain]:
    """Estimate each rank's loss over rows and seeds; [K]. The ranks share one estimate of the seeds' part.

    A seed moves all ranks together, so that K ranks are no more than S - 1 degrees of freedom.
    """
    parts = [parts_of(rank.losses, rank.influences()) for rank in ranks]
    freedom = len(ranks[0].losses) - 1
    return [joined(rank.loss, own, parts, freedom, rank) for rank, own in zip(ranks, parts, strict=True)]


def differences(ranks: Sequence[SeedRows]) -> dict[tuple[int, int], Uncertain]:
    """Estimate the difference of each pair of places i < j, rank i's loss minus rank j's, over rows and seeds."""
    assert all(np.array_equal(rank.target_tokens, ranks[0].target_tokens) for rank in ranks)
    pairs = list(combinations(range(len(ranks)), 2))
    influences = [rank.influences() for rank in ranks]
    parts = [parts_of(ranks[i].losses - ranks[j].losses, influences[i] - influences[j]) for i, j in pairs]
    freedom = (len(ranks) - 1) * (len(ranks[0].losses) - 1)
    return {
        (i, j): joined(ranks[i].loss - ranks[j].loss, own, parts, freedom, ranks[i])
        for (i, j), own in zip(pairs, parts, strict=True)
    }


def parts_of(values_S: Floats, influences_SN: Floats) -> Parts:
    """Divide the variance of a quantity, from its value in each seed and the influences of single rows on it."""
    n_seeds, n_rows = influences_SN.shape
    delete_one = (n_rows - 1) / n_rows
    rows = delete_one * float((influences_SN.mean(axis=0) ** 2).sum())
    if n_seeds == 1:
        return Parts(rows=rows, seeds=0.0, shared=0.0)
    shared = delete_one * float(influences_SN.var(axis=0, ddof=1).sum()) / n_seeds
    return Parts(rows=rows, seeds=float(values_S.var(ddof=1)) / n_seeds, shared=shared)


def joined(value: float, own: Parts, pool: Sequence[Parts], freedom: int, rows: SeedRows) -> Uncertain:
    """Join what the rows of all seeds share with what differs from seed to seed, which is pooled.

    What seeds do to single rows is in both; it is taken from the rows. The degrees of freedom go from those of the rows
    to those of the seeds as the seeds' part goes from nothing to all: more slowly than in Satterthwaite's formula,
    whose intervals are too narrow with so few (docs/decisions, "Intervals over rows and seeds").
    """
    by_rows = len(rows.target_tokens) - 1
    seeds = float(np.mean([part.seeds for part in pool]))
    if freedom == 0 or seeds == 0:
        return Uncertain(value=value, variance=own.rows, degrees=by_rows)
    shared = min(seeds, float(np.mean([part.shared for part in pool])))
    variance = max(0.0, own.rows - own.shared) + seeds
    degrees = joint_degrees(freedom, variance, seeds, by_rows)
    return Uncertain(value=value, variance=variance, degrees=degrees, seeds_variance=seeds, shared_variance=shared)


def joint_degrees(freedom: int, variance: float, seeds_variance: float, by_rows: float = math.inf) -> float:
    """Return the degrees of freedom of a variance of which the seeds' part has ``freedom`` and the rest ``by_rows``."""
    degrees = max(freedom, freedom * variance / seeds_variance / (1 + 1 / freedom**2))
    return min(degrees, by_rows)

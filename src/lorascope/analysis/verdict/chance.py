"""Chance of a verdict before anything is trained, and the difference that a study could tell."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lorascope.analysis.estimates.looks import Differences, look_shares
from lorascope.analysis.estimates.losses import Floats
from lorascope.analysis.estimates.paired import Uncertain, joint_degrees
from lorascope.analysis.verdict.claims import Claims, claims
from lorascope.analysis.verdict.decide import LEAST, open_ranks
from lorascope.analysis.verdict.next_look import Most, Prices, further_data
from lorascope.analysis.verdict.shown import join_claims
from lorascope.costmodel.noise import Noise
from lorascope.search.sequential import MOST_SEEDS, best_purchase

WORSE = 4
"""Tolerances by which the smallest rank is worse in the second of the two cases."""
_DRAWS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """The data of a look; a study that is looked at once has one."""

    seeds: int
    rows: int
    seconds: float = 0.0
    """What its data take beyond those of the first look."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chance:
    """What a study could show, by the noise that is assumed."""

    smallest_difference: float
    """Half the width of a difference's interval at the last look, in nats a token."""
    if_equal: float
    """Chance of a verdict if all ranks have the same loss."""
    if_worse: float
    """Chance of a verdict if the smallest rank is worse by ``WORSE`` tolerances."""


def planned_stages(
    ranks: int, first: Stage, *, rows: int, prices: Prices, noise: Noise, seconds_left: float = math.inf
) -> list[Stage]:
    """Return the looks of a sequential study whose verdict stays open, if its noise is as assumed.

    Args:
        ranks: how many are compared.
        first: the first look.
        rows: held-out rows that it can have.
        prices: of further data.
        noise: on rows such as the study's.
        seconds_left: time that further data may take.
    """
    most, stages = Most(rows=rows, seeds=max(MOST_SEEDS, first.seeds)), [first]
    all_seeds = range(most.seeds)

    def half_width(seeds: int, rows: int) -> float:
        return _half(expected_difference(noise, Stage(seeds=seeds, rows=rows), ranks))

    while True:
        last = stages[-1]
        purchases = further_data(
            ranks=ranks,
            seeds=all_seeds[: last.seeds],
            rows=last.rows,
            held=first.rows,
            most=most,
            prices=prices,
            further=all_seeds,
            half_width=half_width,
        )
        affordable = (one for one in purchases if last.seconds + one.cost * prices.token_seconds <= seconds_left)
        best = best_purchase(affordable, half_width(last.seeds, last.rows))
        if best is None:
            return stages
        seconds = last.seconds + best.cost * prices.token_seconds
        rows, seeds = (best.value, last.seeds) if best.kind == "rows" else (last.rows, last.seeds + 1)
        stages.append(Stage(seeds=seeds, rows=rows, seconds=seconds))


def verdict_chance(ranks: int, stages: Sequence[Stage], *, steps: int, tolerance: float, noise: Noise) -> Chance:
    """Compute the chances of a verdict, each from the same simulated losses.

    Args:
        ranks: how many are compared, at least two.
        stages: the looks that the study can take, with growing data; it ends where one brings a verdict.
        steps: of each trial.
        tolerance: in nats a token.
        noise: on rows such as the study's.
    """
    expected = [expected_difference(noise, stage, ranks) for stage in stages]
    shares = look_shares(ranks, [expected[-1].variance / found.variance for found in expected])
    smallest = _half(replace(expected[-1], share=shares[-1][0]))
    if min(steps, stages[0].rows) < LEAST:
        return Chance(smallest_difference=smallest, if_equal=0.0, if_worse=0.0)
    looks = [(stage, own) for stage, own in zip(stages, shares, strict=True) if own[0] > 0]
    equal, worse = (
        _chance(noise, looks, effects_K, tolerance)
        for effects_K in (np.zeros(ranks), np.array([WORSE * tolerance] + [0.0] * (ranks - 1)))
    )
    return Chance(smallest_difference=smallest, if_equal=equal, if_worse=worse)


def _half(found: Uncertain) -> float:
    interval = found.interval()
    return (interval.high - interval.low) / 2


def expected_difference(noise: Noise, stage: Stage, ranks: int) -> Uncertain:
    """Return a difference of 0 as uncertain as it is expected to be."""
    shared = noise.row_of_seed**2 / stage.rows / stage.seeds
    return _difference(noise, stage, ranks, noise.seed**2 / stage.seeds + shared)


def _difference(noise: Noise, stage: Stage, ranks: int, seeds_variance: float) -> Uncertain:
    """Join the parts of a difference's variance as the comparison of ranks does."""
    shared = noise.row_of_seed**2 / stage.rows / stage.seeds
    of_rows, by_rows = noise.row**2 / stage.rows, stage.rows - 1
    freedom = (ranks - 1) * (stage.seeds - 1)
    if freedom == 0 or seeds_variance == 0:
        return Uncertain(value=0.0, variance=of_rows + shared, degrees=by_rows)
    return Uncertain(
        value=0.0,
        variance=of_rows + seeds_variance,
        degrees=joint_degrees(freedom, of_rows + seeds_variance, seeds_variance, by_rows),
        seeds_variance=seeds_variance,
        shared_variance=min(shared, seeds_variance),
    )


def _chance(
    noise: Noise, looks: Sequence[tuple[Stage, tuple[float, float]]], effects_K: Floats, tolerance: float
) -> float:
    """Return the share of simulated studies that a look brings a verdict; each look has its shares of the error."""
    stages = [stage for stage, _ in looks]
    random = np.random.default_rng(0)
    decided = 0
    for _ in range(_DRAWS):
        shown: Mapping[int, Claims] = {}
        for losses_KS, (stage, shares) in zip(_losses(noise, stages, len(effects_K), random), looks, strict=True):
            pairs = _compare(effects_K[:, None] + losses_KS, noise, stage, shares)
            shown = join_claims(shown, claims(range(len(effects_K)), pairs, tolerance))
            excess = {rank: max(found.value for (one, _), found in pairs.items() if one == rank) for rank in shown}
            if any(found.is_adequate for found in shown.values()) and not open_ranks(shown, excess, tolerance):
                decided += 1
                break
    return decided / _DRAWS


def _losses(noise: Noise, stages: Sequence[Stage], ranks: int, random: np.random.Generator) -> list[Floats]:
    """Simulate the losses of equal ranks at each look, [K, S]; a look's data are among those of later ones."""
    shape, before, found = (ranks, stages[-1].seeds), 0, []
    of_seeds_KS = noise.seed * random.normal(size=shape)
    rows_KS = np.zeros(shape)
    for stage in stages:
        if (more := stage.rows - before) > 0:
            alike_K1, apart_KS = random.normal(size=(ranks, 1)), random.normal(size=shape)
            rows_KS = rows_KS + math.sqrt(more) * (noise.row * alike_K1 + noise.row_of_seed * apart_KS)
            before = stage.rows
        found.append((of_seeds_KS + rows_KS / before)[:, : stage.seeds] / math.sqrt(2))
    return found


def _compare(losses_KS: Floats, noise: Noise, stage: Stage, shares: tuple[float, float]) -> Differences:
    """Compare simulated losses, every pair both ways."""
    ranks, seeds = losses_KS.shape
    means = losses_KS.mean(axis=1).tolist()
    pooled = 0.0
    if seeds > 1:
        apart_KS = losses_KS - losses_KS.mean(axis=0)
        pooled = 2 * float(apart_KS.var(axis=1, ddof=1).sum()) / (ranks - 1) / seeds
    found = replace(_difference(noise, stage, ranks, pooled), share=shares[0], pair_share=shares[1])
    return {(i, j): replace(found, value=means[i] - means[j]) for i in range(ranks) for j in range(ranks) if i != j}

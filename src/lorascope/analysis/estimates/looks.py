"""Comparisons of a sequential study: each look's differences, at the level that alpha spending gives it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from lorascope.analysis.estimates.paired import LEVEL, SeedRows, Uncertain, differences
from lorascope.analysis.estimates.spending import nominal_shares
from lorascope.analysis.study_data import StudyData
from lorascope.records import LookRecord
from lorascope.search.best import last_finite

Differences = Mapping[tuple[int, int], Uncertain]
"""The first rank's loss minus the second's, every pair both ways."""


def look_differences(rows: Sequence[Mapping[int, SeedRows]], information: Sequence[float]) -> list[Differences]:
    """Compare the ranks of each look; a look that may spend no chance of error is left out.

    Args:
        rows: of each look, by rank.
        information: of each look, as a share of the most that the study can have.
    """
    shares = look_shares(max((len(there) for there in rows), default=2), information)
    return [
        {pair: replace(found, share=share, pair_share=pair_share) for pair, found in both_ways(there).items()}
        for there, (share, pair_share) in zip(rows, shares, strict=True)
        if share > 0
    ]


def look_shares(ranks: int, information: Sequence[float]) -> list[tuple[float, float]]:
    """Return the shares of the chances of error at which each look tests: of a bound, and of a test of a pair.

    They are made for the smallest chances of error that the claims' corrections use (``verdict.claims``): of K ranks a
    rank is compared with K - 1 others on one side, and all pairs of ranks on both.

    Args:
        ranks: how many are compared at most.
        information: of each look, as a share of the most that the study can have.
    """
    chances = LEVEL / max(2, ranks - 1), LEVEL / 2 / max(1, math.comb(ranks, 2))
    bounds, pairs = (nominal_shares(information, chance) for chance in chances)
    return list(zip(bounds, pairs, strict=True))


def latest(looks: Sequence[Differences]) -> Differences:
    """Return each pair's difference at the last look that compared it: a settled rank has no part in later ones."""
    found: dict[tuple[int, int], Uncertain] = {}
    for look in looks:
        found |= look
    return found


def rows_of_look(data: StudyData, look: LookRecord) -> dict[int, SeedRows]:
    """Return what a look saw of each of its ranks."""
    trials = {(trial.rank, trial.setting, trial.seed): trial.trial_id for trial in data.trials}
    return {
        rank: held_out(data, [trials[rank, look.settings[rank], seed] for seed in look.seeds], look.rows)
        for rank in look.ranks
    }


def held_out(data: StudyData, trials: Sequence[str], rows: int | None = None) -> SeedRows:
    """Put the held-out losses of a rank's seeds together, those on further rows included.

    Args:
        data: the study.
        trials: ids, one a seed, each with a final evaluation.
        rows: the first so many; None for all that every one of the trials has.
    """
    return seed_rows([_losses(data, trial) for trial in trials], rows)


def seed_rows(losses: Sequence[tuple[Sequence[float], Sequence[int]]], rows: int | None = None) -> SeedRows:
    """Put nats and target tokens of seeds together, [S, N]; rows without target tokens carry no loss and are left out.

    Args:
        losses: nats and target tokens of each seed, row by row.
        rows: the first so many; None for all that every seed has.
    """
    count = min(len(nats) for nats, _ in losses) if rows is None else rows
    tokens = np.array(losses[0][1][:count], dtype=np.float64)
    assert all(np.array_equal(tokens, targets[:count]) for _, targets in losses)
    nats = np.array([found[:count] for found, _ in losses], dtype=np.float64)
    return SeedRows(nats=nats[:, tokens > 0], target_tokens=tokens[tokens > 0])


def _losses(data: StudyData, trial_id: str) -> tuple[Sequence[float], Sequence[int]]:
    last, further = last_finite(data.evaluations[trial_id]), data.further.get(trial_id, ())
    assert last is not None
    nats = chain(last.example_nats, *(record.example_nats for record in further))
    return tuple(nats), tuple(chain(last.example_target_tokens, *(found.example_target_tokens for found in further)))


def both_ways(rows: Mapping[int, SeedRows]) -> Differences:
    """Estimate the difference of every pair of ranks."""
    names = list(rows)
    pairs = {(names[i], names[j]): found for (i, j), found in differences(list(rows.values())).items()}
    return pairs | {(b, a): found.turned() for (a, b), found in pairs.items()}

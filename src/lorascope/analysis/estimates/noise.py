"""Noise of a difference between two ranks, as a finished study shows it."""

import math
from statistics import fmean

from lorascope.analysis.estimates.looks import both_ways, held_out, rows_of_look
from lorascope.analysis.estimates.paired import SeedRows
from lorascope.analysis.study_data import StudyData
from lorascope.costmodel.noise import Noise
from lorascope.search.best import best_settings, latest_losses

_FEWEST_ROWS = 20


def study_noise(data: StudyData) -> Noise | None:
    """Return the noise of a difference, a mean over the pairs of ranks.

    None unless two ranks that differ have two seeds in common and are compared on 20 rows.
    """
    ranks = rows_of_look(data, data.looks[-1]) if data.looks else _best_rows(data)
    some = next(iter(ranks.values()), None)
    if some is None or len(ranks) < 2 or len(some.losses) < 2 or len(some.target_tokens) < _FEWEST_ROWS:
        return None
    seeds, rows = some.nats.shape
    pairs = both_ways(ranks).values()
    of_rows = fmean(max(0.0, found.variance - found.seeds_variance) for found in pairs)
    shared = fmean(found.shared_variance for found in pairs)
    of_seeds = fmean(found.seeds_variance for found in pairs)
    if of_rows + shared == 0:
        return None
    return Noise(
        row=math.sqrt(of_rows * rows),
        row_of_seed=math.sqrt(shared * seeds * rows),
        seed=math.sqrt(max(0.0, of_seeds - shared) * seeds),
        target_tokens=float(some.target_tokens.mean()),
    )


def _best_rows(data: StudyData) -> dict[int, SeedRows]:
    """Return each rank at its best setting, over the seeds that all ranks finished there."""
    best = best_settings(data.trials, latest_losses(data.outcomes, data.evaluations))
    finished = {name for name, outcome in data.outcomes.items() if outcome.state == "finished"}
    trials = {
        rank: {
            trial.seed: trial.trial_id
            for trial in data.trials
            if (trial.rank, trial.setting) == (rank, setting) and trial.trial_id in finished
        }
        for (_, rank), setting in best.items()
    }
    seeds = [seed for seed in data.seeds if all(seed in own for own in trials.values())]
    return {rank: held_out(data, [own[seed] for seed in seeds]) for rank, own in trials.items()} if seeds else {}

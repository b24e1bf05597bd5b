"""Each rank at its best alpha and learning rate, and the paired comparison of ranks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lorascope.analysis.estimates.losses import Estimate
from lorascope.analysis.estimates.paired import LEVEL, SeedRows, Uncertain, differences, losses
from lorascope.analysis.study_data import StudyData
from lorascope.analysis.summary import TrialSection
from lorascope.analysis.verdict.claims import shown_above
from lorascope.records import NOT_COMPARED, EvalRecord, Setting
from lorascope.search.best import best_settings, last_finite, latest_losses


@dataclass(frozen=True, kw_only=True, slots=True)
class RankChoice:
    """A rank's best alpha and learning rate, and the trials behind its losses."""

    rank: int
    lora_alpha: float
    learning_rate: float
    trials: tuple[TrialSection, ...]
    rows: SeedRows
    """One row of nats for each of ``trials``."""

    def at(self, seeds: Sequence[int]) -> SeedRows:
        """Take the trials of these seeds, in their order."""
        places = {trial.seed: place for place, trial in enumerate(self.trials)}
        return SeedRows(nats=self.rows.nats[[places[seed] for seed in seeds]], target_tokens=self.rows.target_tokens)

    @property
    def train_loss(self) -> float | None:
        """Mean over the trials that have one."""
        return _mean([trial.train_loss for trial in self.trials if trial.train_loss is not None])


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Ranks compared on the same held-out rows and the same seeds."""

    step: int | None
    """Step the ranks are compared at; None while trials stand at different steps, too few rows were held out, or no
    seed survived in all ranks."""
    seeds: tuple[int, ...]
    """Seeds that every rank has; the number of replications behind the differences."""
    best: int
    """The rank with the lowest loss over those seeds."""
    loss: Mapping[int, Estimate]
    """By rank, ascending, over the rank's own seeds; empty with fewer than two held-out rows."""
    excess: Mapping[int, Estimate]
    """Above the best rank, by rank, ascending; empty where ``step`` is None."""
    differences: Mapping[tuple[int, int], Uncertain]
    """The first rank's loss minus the second's, every pair both ways; empty where ``step`` is None."""


def choose(data: StudyData, trials: Sequence[TrialSection]) -> dict[int, RankChoice]:
    """Return every rank that has a held-out loss at its best setting, with the trials that are compared."""
    losses = latest_losses(data.outcomes, data.evaluations)
    return {
        rank: _choice(data, rank, setting, [trial for trial in trials if trial.trial_id in losses])
        for (_, rank), setting in best_settings(data.trials, losses).items()
    }


def compare(choices: Mapping[int, RankChoice], trials: Sequence[TrialSection]) -> Comparison | None:
    """Compare the ranks that have a loss; None without any."""
    if not choices:
        return None
    seeds = _common_seeds(choices)
    shared = {rank: choice.at(seeds) if seeds else choice.rows for rank, choice in choices.items()}
    best = min(shared, key=lambda rank: shared[rank].loss)
    if len(choices[best].rows.target_tokens) < 2:
        return Comparison(step=None, seeds=seeds, best=best, loss={}, excess={}, differences={})
    steps = {trial.eval_step for trial in trials if trial.outcome not in NOT_COMPARED}
    step = steps.pop() if len(steps) == 1 and seeds else None
    pairs = _both_ways(shared) if step is not None else {}
    return Comparison(
        step=step,
        seeds=seeds,
        best=best,
        loss=_loss_intervals(choices),
        excess=_excess(best, choices, pairs) if step is not None else {},
        differences=pairs,
    )


def _common_seeds(choices: Mapping[int, RankChoice]) -> tuple[int, ...]:
    first, *others = ({trial.seed: None for trial in choice.trials} for choice in choices.values())
    return tuple(seed for seed in first if all(seed in other for other in others))


def _loss_intervals(choices: Mapping[int, RankChoice]) -> dict[int, Estimate]:
    """Estimate the losses of ranks with the same seeds together, so that they share what the seeds move."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for rank, choice in choices.items():
        groups.setdefault(tuple(trial.seed for trial in choice.trials), []).append(rank)
    estimates = {
        rank: estimate
        for group in groups.values()
        for rank, estimate in zip(group, losses([choices[rank].rows for rank in group]), strict=True)
    }
    return {rank: estimates[rank].interval() for rank in choices}


def _both_ways(rows: Mapping[int, SeedRows]) -> dict[tuple[int, int], Uncertain]:
    names = list(rows)
    pairs = {(names[i], names[j]): found for (i, j), found in differences(list(rows.values())).items()}
    return pairs | {(b, a): found.turned() for (a, b), found in pairs.items()}


def _excess(best: int, ranks: Iterable[int], pairs: Mapping[tuple[int, int], Uncertain]) -> dict[int, Estimate]:
    """Give each rank its interval above the best.

    The best is the lowest of several estimates and so lower than it deserves. Only the lower side errs by that: of k
    equal ranks any one may come out best, so that an interval which misses with a chance c below misses k c in all.
    With c = 5% / k the intervals shown hold the truth in 95% of cases however close the ranks are (the false coverage
    rate of Benjamini and Yekutieli, JASA 100, 2005). k counts the ranks that could be the best: those not shown to be
    worse than another.
    """
    names = tuple(ranks)
    able = sum(chance > LEVEL for chance in shown_above(pairs, names, 0.0).values())
    below = LEVEL / max(2, able)
    none = Estimate(value=0.0, low=0.0, high=0.0)
    return {rank: none if rank == best else pairs[rank, best].interval(below=below) for rank in names}


def seed_rows(records: Sequence[EvalRecord]) -> SeedRows:
    """Put the evaluations of a rank's seeds together; rows without target tokens carry no loss and are left out."""
    tokens = np.array(records[0].example_target_tokens, dtype=np.float64)
    assert all(record.example_target_tokens == records[0].example_target_tokens for record in records)
    nats = np.array([record.example_nats for record in records], dtype=np.float64)
    return SeedRows(nats=nats[:, tokens > 0], target_tokens=tokens[tokens > 0])


def _choice(data: StudyData, rank: int, setting: Setting, trials: Sequence[TrialSection]) -> RankChoice:
    alpha, rate = setting
    used = tuple(t for t in trials if (t.rank, t.lora_alpha, t.learning_rate) == (rank, alpha, rate))
    records = [record for trial in used if (record := last_finite(data.evaluations[trial.trial_id])) is not None]
    return RankChoice(rank=rank, lora_alpha=alpha, learning_rate=rate, trials=used, rows=seed_rows(records))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None

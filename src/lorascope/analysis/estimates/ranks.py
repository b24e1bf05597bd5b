"""Each rank at its best alpha and learning rate, and the paired comparison of ranks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lorascope.analysis.estimates.looks import (
    Differences,
    both_ways,
    held_out,
    latest,
    look_differences,
    rows_of_look,
)
from lorascope.analysis.estimates.losses import Estimate
from lorascope.analysis.estimates.paired import LEVEL, SeedRows, Uncertain, losses
from lorascope.analysis.study_data import StudyData
from lorascope.analysis.summary import TrialSection
from lorascope.analysis.verdict.claims import shown_above
from lorascope.records import NOT_COMPARED, Setting
from lorascope.search.best import best_settings, latest_losses


@dataclass(frozen=True, kw_only=True, slots=True)
class RankChoice:
    """A rank's best alpha and learning rate, and the trials behind its losses."""

    rank: int
    lora_alpha: float
    learning_rate: float
    trials: tuple[TrialSection, ...]
    rows: SeedRows
    """One row of nats for each of ``trials``."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """In the order of ``trials``."""
        return tuple(trial.seed for trial in self.trials)

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
    differences: Differences
    """The first rank's loss minus the second's, every pair both ways; empty where ``step`` is None."""
    looks: tuple[Differences, ...] = ()
    """The same at each look of a sequential study; a rank that a look settled has no part in the later ones."""


def choose(data: StudyData, trials: Sequence[TrialSection]) -> dict[int, RankChoice]:
    """Return every rank that has a held-out loss at its best setting, with the trials that are compared."""
    if data.looks:
        return _choices_of_looks(data, trials)
    losses = latest_losses(data.outcomes, data.evaluations)
    return {
        rank: _choice(data, rank, setting, [trial for trial in trials if trial.trial_id in losses])
        for (_, rank), setting in best_settings(data.trials, losses).items()
    }


def compare(data: StudyData, choices: Mapping[int, RankChoice], trials: Sequence[TrialSection]) -> Comparison | None:
    """Compare the ranks that have a loss; None without any."""
    if not choices:
        return None
    if data.looks:
        return _compare_looks(data, choices)
    seeds = common_seeds(choices)
    shared = {rank: choice.at(seeds) if seeds else choice.rows for rank, choice in choices.items()}
    best = min(shared, key=lambda rank: shared[rank].loss)
    if len(choices[best].rows.target_tokens) < 2:
        return Comparison(step=None, seeds=seeds, best=best, loss={}, excess={}, differences={})
    steps = {trial.eval_step for trial in trials if trial.outcome not in NOT_COMPARED}
    step = steps.pop() if len(steps) == 1 and seeds else None
    pairs = both_ways(shared) if step is not None else {}
    return Comparison(
        step=step,
        seeds=seeds,
        best=best,
        loss=_loss_intervals(choices),
        excess=excess_over_best(best, choices, pairs) if step is not None else {},
        differences=pairs,
    )


def common_seeds(choices: Mapping[int, RankChoice]) -> tuple[int, ...]:
    """Return the seeds that every rank has; there is at least one rank."""
    first, *others = (choice.seeds for choice in choices.values())
    return tuple(seed for seed in first if all(seed in other for other in others))


def _loss_intervals(choices: Mapping[int, RankChoice]) -> dict[int, Estimate]:
    """Estimate the losses of ranks with the same seeds together, so that they share what the seeds move."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for rank, choice in choices.items():
        groups.setdefault(choice.seeds, []).append(rank)
    estimates = {
        rank: estimate
        for group in groups.values()
        for rank, estimate in zip(group, losses([choices[rank].rows for rank in group]), strict=True)
    }
    return {rank: estimates[rank].interval() for rank in choices}


def excess_over_best(
    best: int, ranks: Iterable[int], pairs: Mapping[tuple[int, int], Uncertain]
) -> dict[int, Estimate]:
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


def _choice(data: StudyData, rank: int, setting: Setting, trials: Sequence[TrialSection]) -> RankChoice:
    used = tuple(trial for trial in trials if trial.rank == rank and _setting(trial) == setting)
    return _rank_choice(used, held_out(data, [trial.trial_id for trial in used]))


def _setting(trial: TrialSection) -> Setting:
    return trial.lora_alpha, trial.learning_rate


def _rank_choice(trials: Sequence[TrialSection], rows: SeedRows) -> RankChoice:
    first = trials[0]
    return RankChoice(
        rank=first.rank,
        lora_alpha=first.lora_alpha,
        learning_rate=first.learning_rate,
        trials=tuple(trials),
        rows=rows,
    )


def _choices_of_looks(data: StudyData, trials: Sequence[TrialSection]) -> dict[int, RankChoice]:
    """Return what the last look at each rank saw of it."""
    found: dict[int, RankChoice] = {}
    for look in data.looks:
        for rank, rows in rows_of_look(data, look).items():
            own = {
                trial.seed: trial for trial in trials if trial.rank == rank and _setting(trial) == look.settings[rank]
            }
            found[rank] = _rank_choice([own[seed] for seed in look.seeds], rows)
    return dict(sorted(found.items()))


def _compare_looks(data: StudyData, choices: Mapping[int, RankChoice]) -> Comparison:
    looks = look_differences(
        [rows_of_look(data, look) for look in data.looks], [look.information for look in data.looks]
    )
    pairs, last = latest(looks), data.looks[-1]
    best = min(last.ranks, key=lambda rank: choices[rank].rows.loss)
    excess, lowest = excess_over_best(best, choices, pairs), choices[best].rows.loss
    return Comparison(
        step=choices[best].trials[0].eval_step,
        seeds=last.seeds,
        best=best,
        loss={rank: _moved(found, lowest + excess[rank].value) for rank, found in _loss_intervals(choices).items()},
        excess=excess,
        differences=pairs,
        looks=tuple(looks),
    )


def _moved(estimate: Estimate, value: float) -> Estimate:
    """Put a loss where its paired difference from the lowest has it: ranks that were settled early saw other rows."""
    move = value - estimate.value
    return Estimate(value=value, low=estimate.low + move, high=estimate.high + move)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None

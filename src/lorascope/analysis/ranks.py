"""Each rank at its best learning rate, and the ranks beside each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lorascope.analysis.data import StudyData
from lorascope.analysis.estimates import (
    Estimate,
    Floats,
    RowLosses,
    interval,
    last_finite,
    resampled_losses,
    row_losses,
)
from lorascope.analysis.summary import TrialPart

ENDED_EARLY = ("diverged", "oom", "failed")
NOT_COMPARED = (*ENDED_EARLY, "stopped")


@dataclass(frozen=True, kw_only=True, slots=True)
class RankChoice:
    """A rank's best learning rate and the trials behind its losses."""

    rank: int
    learning_rate: float
    trials: tuple[TrialPart, ...]
    rows: RowLosses

    @property
    def train_loss(self) -> float | None:
        """Mean over the trials that have one."""
        return _mean([trial.train_loss for trial in self.trials if trial.train_loss is not None])


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Ranks beside each other on the same held-out rows."""

    step: int | None
    """Step the ranks are compared at; None while trials stand at different steps, or too few rows were held out."""
    best: int
    """The rank with the lowest loss."""
    loss: Mapping[int, Estimate]
    """By rank, ascending; empty with fewer than two held-out rows."""
    excess: Mapping[int, Estimate]
    """Above the best rank, by rank, ascending; empty where ``step`` is None."""


def choose(data: StudyData, trials: Sequence[TrialPart]) -> dict[int, RankChoice]:
    """Find the best learning rate of every rank that has a held-out loss; trials that ended early do not count.

    A learning rate with more surviving seeds goes before a lower loss, so that the seeds that failed are not hidden.
    """
    choices = {}
    for rank in data.ranks:
        candidates = [
            choice
            for learning_rate in data.rates[rank]
            if (choice := _candidate(data, trials, rank, learning_rate)) is not None
        ]
        if candidates:
            choices[rank] = min(candidates, key=lambda choice: (-len(choice.trials), choice.rows.loss))
    return choices


def compare(choices: Mapping[int, RankChoice], trials: Sequence[TrialPart]) -> Comparison | None:
    """Put the ranks that have a loss beside each other; None without any."""
    if not choices:
        return None
    best = min(choices, key=lambda rank: choices[rank].rows.loss)
    if len(choices[best].rows.nats) < 2:
        return Comparison(step=None, best=best, loss={}, excess={})
    steps = {trial.eval_step for trial in trials if trial.outcome not in NOT_COMPARED}
    step = steps.pop() if len(steps) == 1 else None
    losses_BK = resampled_losses([choice.rows for choice in choices.values()])
    columns = dict(zip(choices, losses_BK.T, strict=True))
    loss, excess = {}, {}
    for rank, choice in choices.items():
        loss[rank] = _estimate(choice.rows.loss, columns[rank])
        excess[rank] = _estimate(choice.rows.loss - choices[best].rows.loss, columns[rank] - columns[best])
    return Comparison(step=step, best=best, loss=loss, excess=excess if step is not None else {})


def _estimate(value: float, resampled_B: Floats) -> Estimate:
    low, high = interval(resampled_B)
    return Estimate(value=value, low=low, high=high)


def _candidate(data: StudyData, trials: Sequence[TrialPart], rank: int, learning_rate: float) -> RankChoice | None:
    usable = tuple(
        trial
        for trial in trials
        if (trial.rank, trial.learning_rate) == (rank, learning_rate)
        and trial.outcome not in NOT_COMPARED
        and trial.eval_loss is not None
    )
    records = [record for trial in usable if (record := last_finite(data.evaluations[trial.trial_id])) is not None]
    if not records:
        return None
    return RankChoice(rank=rank, learning_rate=learning_rate, trials=usable, rows=row_losses(records))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None

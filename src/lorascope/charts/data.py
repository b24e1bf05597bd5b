"""What each chart shows, as plain numbers; nothing here draws."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lorascope.analysis import StudyData, StudySummary
from lorascope.analysis.part import Interval
from lorascope.records import EvalRecord, StepRecord

MAX_POINTS = 600
"""Points of one curve; more than a chart has pixels only make the file large."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Loss of one trial over steps."""

    rank: int
    steps: tuple[int, ...]
    losses: tuple[float, ...]
    """Nats a token, finite."""
    smoothed: tuple[float, ...]
    """The same, smoothed; equal to ``losses`` where there is nothing to smooth."""
    ended_early: bool
    """True where the trial diverged, ran out of memory or failed after the last point."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossBySteps:
    """Curves of one loss, one of each rank."""

    metric: str
    """Name in the metrics registry."""
    curves: tuple[Curve, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RankPoint:
    """One rank's number with its 95% interval."""

    rank: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LossByRank:
    """A loss or a difference of losses against rank."""

    metric: str
    """Name in the metrics registry."""
    points: tuple[RankPoint, ...]
    tolerance: float | None
    """Line that adequate ranks stay below, for differences."""


def train_loss_by_step(data: StudyData, summary: StudySummary) -> LossBySteps:
    """Take every rank's training loss at its best learning rate, first seed."""
    curves = []
    for rank, trial_id, ended_early in _shown_trials(data, summary):
        steps, losses = _thinned(data.steps[trial_id])
        if steps:
            curves.append(
                Curve(rank=rank, steps=steps, losses=losses, smoothed=smooth(losses), ended_early=ended_early)
            )
    return LossBySteps(metric="train_loss", curves=tuple(curves))


def eval_loss_by_step(data: StudyData, summary: StudySummary) -> LossBySteps:
    """Take the same trials' held-out losses."""
    curves = []
    for rank, trial_id, ended_early in _shown_trials(data, summary):
        points = _finite_losses(data.evaluations[trial_id])
        if points:
            steps, losses = zip(*points, strict=True)
            curves.append(Curve(rank=rank, steps=steps, losses=losses, smoothed=losses, ended_early=ended_early))
    return LossBySteps(metric="eval_loss", curves=tuple(curves))


def eval_loss_by_rank(summary: StudySummary) -> LossByRank:
    """Take every rank's held-out loss and the interval it has by itself."""
    points = [_point(part.rank, part.eval_loss, part.eval_loss_ci95) for part in summary.ranks]
    return LossByRank(metric="eval_loss", points=tuple(filter(None, points)), tolerance=None)


def excess_loss_by_rank(summary: StudySummary) -> LossByRank:
    """Take every rank's excess over the best and its paired interval; no points where there is nothing to compare."""
    points = [_point(part.rank, part.excess_loss, part.excess_loss_ci95) for part in summary.ranks]
    found = tuple(filter(None, points))
    return LossByRank(metric="excess_loss", points=found if len(found) > 1 else (), tolerance=summary.study.tolerance)


def smooth(losses: Sequence[float]) -> tuple[float, ...]:
    """Average exponentially over about a twentieth of the points, without the pull towards a start value."""
    keep = 1 - 1 / max(len(losses) / 20, 1)
    smoothed, total, weight = [], 0.0, 0.0
    for loss in losses:
        total = keep * total + loss
        weight = keep * weight + 1
        smoothed.append(total / weight)
    return tuple(smoothed)


def _point(rank: int, value: float | None, interval: Interval | None) -> RankPoint | None:
    if value is None or interval is None:
        return None
    return RankPoint(rank=rank, value=value, low=interval[0], high=interval[1])


def _shown_trials(data: StudyData, summary: StudySummary) -> list[tuple[int, str, bool]]:
    shown = []
    for part in summary.ranks:
        of_rank = [trial for trial in summary.trials if trial.rank == part.rank]
        best = [trial for trial in of_rank if trial.learning_rate == part.best_learning_rate and trial.eval_loss] or [
            trial for trial in of_rank if data.steps[trial.trial_id] or data.evaluations[trial.trial_id]
        ]
        if best:
            ended_early = best[0].outcome in ("diverged", "oom", "failed")
            shown.append((part.rank, best[0].trial_id, ended_early))
    return shown


def _thinned(records: Sequence[StepRecord]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Join neighbouring steps until the curve fits; a joined point is the loss over all its tokens."""
    finite = [record for record in records if record.target_tokens and math.isfinite(record.nats)]
    size = -(-len(finite) // MAX_POINTS) or 1
    groups = [finite[start : start + size] for start in range(0, len(finite), size)]
    losses = (sum(record.nats for record in group) / sum(record.target_tokens for record in group) for group in groups)
    return tuple(group[-1].step for group in groups), tuple(losses)


def _finite_losses(records: Sequence[EvalRecord]) -> list[tuple[int, float]]:
    return [(record.step, loss) for record in records if (loss := record.loss) is not None]

"""What each chart of losses shows, as plain numbers; nothing here draws."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lorascope.analysis import StudyData, StudySummary
from lorascope.analysis.section import Interval
from lorascope.analysis.summary import RankSection, TrialSection
from lorascope.charts.downsample import Floats, group_ends, group_sums, keep_peaks
from lorascope.records import EvalRecord
from lorascope.store.columns import StepColumns

MAX_POINTS = 600
"""Points of one curve; more than a chart has pixels only make the file large."""
MAX_OTHER_POINTS = 100
"""Points of a curve that is shown faintly behind."""


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
    trial_id: str = ""
    tokens: tuple[int, ...] = ()
    """Tokens trained on up to each point."""
    seconds: tuple[float, ...] = ()
    """Time of the rank alone up to each point, from its measured step; empty where it was not measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossBySteps:
    """Curves of one loss, one of each rank."""

    metric: str
    """Name in the metrics registry."""
    curves: tuple[Curve, ...]
    others: tuple[Curve, ...] = ()
    """Trials at other learning rates and seeds."""

    @property
    def smoothed(self) -> bool:
        """Say whether any curve was smoothed."""
        return any(curve.losses != curve.smoothed for curve in self.curves)


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
    shown, others = _split_trials(data, summary)
    return LossBySteps(
        metric="train_loss",
        curves=_known([_train_curve(data, trial, part, MAX_POINTS) for part, trial in shown]),
        others=_known([_train_curve(data, trial, part, MAX_OTHER_POINTS) for part, trial in others]),
    )


def eval_loss_by_step(data: StudyData, summary: StudySummary) -> LossBySteps:
    """Take the same trials' held-out losses."""
    shown, others = _split_trials(data, summary)
    return LossBySteps(
        metric="eval_loss",
        curves=_known([_eval_curve(data, trial, part, MAX_POINTS) for part, trial in shown]),
        others=_known([_eval_curve(data, trial, part, MAX_OTHER_POINTS) for part, trial in others]),
    )


def eval_loss_by_rank(summary: StudySummary) -> LossByRank:
    """Take every rank's held-out loss and the interval it has by itself."""
    points = [_point(part.rank, part.eval_loss, part.eval_loss_ci95) for part in summary.ranks]
    return LossByRank(metric="eval_loss", points=tuple(filter(None, points)), tolerance=None)


def excess_loss_by_rank(summary: StudySummary) -> LossByRank:
    """Take every rank's excess over the best and its paired interval; no points where there is nothing to compare."""
    points = [_point(part.rank, part.excess_loss, part.excess_loss_ci95) for part in summary.ranks]
    found = tuple(filter(None, points))
    return LossByRank(metric="excess_loss", points=found if len(found) > 1 else (), tolerance=summary.study.tolerance)


def forgetting_by_rank(summary: StudySummary) -> LossByRank:
    """Take how much worse each rank predicts the generic text than the base model does."""
    known = [(part.rank, part.forgetting) for part in summary.ranks if part.forgetting is not None]
    points = [_point(rank, part.change, part.change_ci95) for rank, part in known]
    return LossByRank(metric="forgetting", points=tuple(filter(None, points)), tolerance=None)


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


def _split_trials(
    data: StudyData, summary: StudySummary
) -> tuple[list[tuple[RankSection, TrialSection]], list[tuple[RankSection, TrialSection]]]:
    """Take a trial for each rank, that of its best learning rate and first seed, and all others."""
    shown, others = [], []
    for part in summary.ranks:
        of_rank = [trial for trial in summary.trials if trial.rank == part.rank]
        best = [trial for trial in of_rank if trial.learning_rate == part.best_learning_rate and trial.eval_loss] or [
            trial for trial in of_rank if len(data.steps[trial.trial_id]) or data.evaluations[trial.trial_id]
        ]
        shown += [(part, trial) for trial in best[:1]]
        others += [(part, trial) for trial in of_rank if trial not in best[:1]]
    return shown, others


def _known(curves: Sequence[Curve | None]) -> tuple[Curve, ...]:
    return tuple(curve for curve in curves if curve is not None)


def _train_curve(data: StudyData, trial: TrialSection, part: RankSection, most: int) -> Curve | None:
    steps = data.steps[trial.trial_id]
    finite = steps.with_loss
    if not len(finite):
        return None
    kept = keep_peaks(finite.losses, most)
    smoothed = _smoothed(finite)[kept].tolist()
    return _curve(trial, part, steps, finite.step[kept].tolist(), (finite.losses[kept].tolist(), smoothed))


def _eval_curve(data: StudyData, trial: TrialSection, part: RankSection, most: int) -> Curve | None:
    points = _finite_losses(data.evaluations[trial.trial_id])
    if not points:
        return None
    kept = keep_peaks(np.array([loss for _, loss in points]), most)
    steps, losses = zip(*(points[place] for place in kept), strict=True)
    return _curve(trial, part, data.steps[trial.trial_id], steps, (losses, losses))


def _curve(
    trial: TrialSection,
    part: RankSection,
    done: StepColumns,
    steps: Sequence[int],
    losses: tuple[Sequence[float], Sequence[float]],
) -> Curve:
    """Make the curve of a trial at some of its steps; ``losses`` are single and smoothed."""
    tokens = np.concatenate(([0], np.cumsum(done.tokens)))[np.searchsorted(done.step, steps, side="right")]
    alone = part.step_seconds
    return Curve(
        rank=trial.rank,
        steps=tuple(steps),
        losses=tuple(losses[0]),
        smoothed=tuple(losses[1]),
        ended_early=trial.outcome in ("diverged", "oom", "failed"),
        trial_id=trial.trial_id,
        tokens=tuple(tokens.tolist()) if len(done) else (),
        seconds=tuple(step * alone for step in steps) if alone is not None else (),
    )


def _smoothed(steps: StepColumns) -> Floats:
    """Smooth a whole curve; a long one from groups of neighbouring steps, each its nats over its tokens."""
    means = group_sums(steps.nats, MAX_POINTS) / group_sums(steps.target_tokens, MAX_POINTS)
    ends = steps.step[group_ends(len(steps), MAX_POINTS)]
    return np.interp(steps.step, ends, smooth(means.tolist()))


def _finite_losses(records: Sequence[EvalRecord]) -> list[tuple[int, float]]:
    return [(record.step, loss) for record in records if (loss := record.loss) is not None]

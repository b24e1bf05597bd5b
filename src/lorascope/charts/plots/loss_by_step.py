"""Training and held-out loss by step: a curve for each rank at its best learning rate, the mean over its seeds."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from lorascope.analysis import StudyData, StudySummary
from lorascope.analysis.summary import RankSection, TrialSection
from lorascope.charts.chart import Chart
from lorascope.charts.curves import Curve, LossByStep, loss_by_step_spec
from lorascope.charts.downsample import Floats, group_ends, group_sums, keep_peaks, smooth
from lorascope.records import UNSUCCESSFUL
from lorascope.store.columns import StepColumns
from lorascope.text.language import tr

MAX_POINTS = 600
"""Points of one curve; more than a chart has pixels only make the file large."""
MAX_OTHER_POINTS = 100
"""Points of a curve that is drawn faintly behind the others."""
SMOOTHED, SMOOTHER = 1 / 20, 1 / 5
"""Shares of a curve's points that its two averages reach over."""
_ALIKE = 0.005
"""Ends of curves that lie so near are called alike, in nats a token."""

TakeCurve = Callable[[StudyData, TrialSection, RankSection, int], "Curve | None"]


def charts(study: StudyData, summary: StudySummary) -> Iterator[Chart]:
    """Make the charts of held-out loss and training loss."""
    held_out = eval_loss_by_step(study, summary)
    if held_out.curves:
        caption = tr("Step 0 is the base model before training.")
        held, compared = study.resolved.eval_examples if study.resolved else 0, summary.compared_rows or 0
        if held < compared:
            rows = tr("On the first {held} of the {compared} held-out examples compared.", held=held, compared=compared)
            caption = f"{rows} {caption}"
        yield _chart(held_out, tr("Held-out loss"), caption, study.ranks)
    training = train_loss_by_step(study, summary)
    if training.curves:
        caption = (
            tr("Faint: the loss of each step. Bold: its exponential average.")
            if training.smoothed
            else tr("The loss of each step.")
        )
        yield _chart(training, tr("Training loss"), caption, study.ranks)


def _chart(data: LossByStep, title: str, caption: str, ranks: tuple[int, ...]) -> Chart:
    if any(curve.low for curve in data.curves):
        caption = f"{caption} {tr('Mean over seeds; the band reaches from the lowest to the highest.')}"
    if any(curve.ended_early for curve in data.curves):
        caption = f"{caption} {tr('A cross marks a trial that ended early.')}"
    ends = sorted((curve.smoothed[-1], curve.rank) for curve in data.curves)
    (low, rank), (high, _) = ends[0], ends[-1]
    alike = len(data.curves) > 1 and high - low < _ALIKE
    return Chart(
        name=data.metric,
        section="loss_curves",
        title=title,
        caption=caption,
        finding=tr("All end within {spread}, at {loss}.", spread=f"{high - low:.3f}", loss=f"{low:.3f}")
        if alike
        else tr("Rank {rank} ends lowest, at {loss}.", rank=rank, loss=f"{low:.3f}"),
        spec=loss_by_step_spec(data, ranks),
        interactive_spec=loss_by_step_spec(data, ranks, hover=True),
    )


def train_loss_by_step(study: StudyData, summary: StudySummary) -> LossByStep:
    """Take every rank's training loss at its best learning rate, first seed."""
    return _loss_by_step("train_loss", _train_curve, study, summary)


def eval_loss_by_step(study: StudyData, summary: StudySummary) -> LossByStep:
    """Take the held-out losses of the same trials."""
    return _loss_by_step("eval_loss", _eval_curve, study, summary)


def shown_trials(study: StudyData, summary: StudySummary) -> tuple[TrialSection, ...]:
    """Return each rank's first trial at its best learning rate, or the first that began."""
    return tuple(trials[0] for part in summary.ranks if (trials := _best_trials(study, summary, part)))


def _best_trials(study: StudyData, summary: StudySummary, part: RankSection) -> list[TrialSection]:
    of_rank = [trial for trial in summary.trials if trial.rank == part.rank]
    at_alpha = [trial for trial in of_rank if trial.lora_alpha == part.lora_alpha]
    best = [trial for trial in at_alpha if trial.learning_rate == part.best_learning_rate and trial.eval_loss]
    began = [trial for trial in of_rank if len(study.steps[trial.trial_id]) or study.evaluations[trial.trial_id]]
    return best or began[:1]


def _loss_by_step(metric: str, curve: TakeCurve, study: StudyData, summary: StudySummary) -> LossByStep:
    shown: list[Curve | None] = []
    others: list[Curve | None] = []
    for rank in summary.ranks:
        best = _best_trials(study, summary, rank)
        seeds = [curve(study, trial, rank, MAX_POINTS) for trial in best]
        shown.append(_mean(list(filter(None, seeds))))
        rest = [trial for trial in summary.trials if trial.rank == rank.rank and trial not in best[:1]]
        others += [curve(study, trial, rank, MAX_OTHER_POINTS) for trial in rest]
    return LossByStep(metric=metric, curves=tuple(filter(None, shown)), others=tuple(filter(None, others)))


def _mean(seeds: Sequence[Curve]) -> Curve | None:
    """Take mean and range of the seeds that got as far as the first, at its points; single steps are its own."""
    if not seeds:
        return None
    first = seeds[0]
    even = [seed for seed in seeds if seed.steps[-1] == first.steps[-1] and not seed.ended_early]
    if first.ended_early or len(even) < 2:
        return first
    smoothed, smoother = (
        np.array([np.interp(first.steps, seed.steps, getattr(seed, name)) for seed in even])
        for name in ("smoothed", "smoother")
    )
    means = tuple(smoothed.mean(axis=0).tolist())
    return replace(
        first,
        losses=means if first.losses == first.smoothed else first.losses,
        smoothed=means,
        smoother=tuple(smoother.mean(axis=0).tolist()),
        low=tuple(smoothed.min(axis=0).tolist()),
        high=tuple(smoothed.max(axis=0).tolist()),
    )


def _train_curve(study: StudyData, trial: TrialSection, rank: RankSection, most: int) -> Curve | None:
    steps = study.steps[trial.trial_id]
    finite = steps.with_loss
    if not len(finite):
        return None
    kept = keep_peaks(finite.losses, most)
    losses = [finite.losses, _smoothed(finite, SMOOTHED), _smoothed(finite, SMOOTHER)]
    return _curve(trial, rank, steps, finite.step[kept].tolist(), [values[kept].tolist() for values in losses])


def _smoothed(steps: StepColumns, share: float) -> Floats:
    """Smooth a whole curve; a long one from groups of neighbouring steps, each its nats over its tokens."""
    means = group_sums(steps.nats, MAX_POINTS) / group_sums(steps.target_tokens, MAX_POINTS)
    ends = steps.step[group_ends(len(steps), MAX_POINTS)]
    return np.interp(steps.step, ends, smooth(means.tolist(), share))


def _eval_curve(study: StudyData, trial: TrialSection, rank: RankSection, most: int) -> Curve | None:
    points = [(record.step, loss) for record in study.evaluations[trial.trial_id] if (loss := record.loss) is not None]
    if not points:
        return None
    kept = keep_peaks(np.array([loss for _, loss in points]), most)
    steps, losses = zip(*(points[place] for place in kept), strict=True)
    return _curve(trial, rank, study.steps[trial.trial_id], steps, [losses] * 3)


def _curve(
    trial: TrialSection,
    rank: RankSection,
    done: StepColumns,
    steps: Sequence[int],
    losses: Sequence[Sequence[float]],
) -> Curve:
    """Make the curve of a trial at some of its steps; ``losses`` are single, smoothed, and smoothed more."""
    tokens = np.concatenate(([0], np.cumsum(done.tokens)))[np.searchsorted(done.step, steps, side="right")]
    alone = rank.step_seconds
    return Curve(
        rank=trial.rank,
        steps=tuple(steps),
        losses=tuple(losses[0]),
        smoothed=tuple(losses[1]),
        smoother=tuple(losses[2]),
        ended_early=trial.outcome in UNSUCCESSFUL,
        trial_id=trial.trial_id,
        tokens=tuple(tokens.tolist()) if len(done) else (),
        seconds=tuple(step * alone for step in steps) if alone is not None else (),
    )

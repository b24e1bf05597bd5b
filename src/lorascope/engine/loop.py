"""Training loop of a trial group: every trial over the same rows, one step at a time."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lorascope.data.dataset import Splits
from lorascope.engine.evaluate import ExampleScores, evaluate
from lorascope.engine.forward import FrozenModel
from lorascope.engine.instrumentation import Probe
from lorascope.engine.step import train_step
from lorascope.engine.trial import TrainingTrial
from lorascope.message import Message
from lorascope.modeling.packing.packed_layout import BASE_ONLY
from lorascope.records import EvalRecord, StepRecord, TrialOutcome
from lorascope.search.halving import Rungs
from lorascope.search.steps import evaluation_steps
from lorascope.spec.schema import StudySpec

WARMUP_STEPS = 1
"""First steps of a process, whose times are flagged: memory is being mapped and caches are cold."""


class Recorder(Protocol):
    """Receives what the loop produces."""

    def steps(self, records: Sequence[StepRecord]) -> None:
        """Keep one step of every trial."""

    def evaluation(self, record: EvalRecord) -> None:
        """Keep a held-out evaluation."""

    def ended(self, trials: Sequence[TrainingTrial], outcomes: Sequence[TrialOutcome]) -> None:
        """Keep how trials ended after one step, and the adapters of those that finished: all of it or nothing."""

    def checkpoint_if_due(self, trials: Sequence[TrainingTrial]) -> None:
        """Save the group's state where the last save is long enough ago; called between steps."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialGroup:
    """Trials that train together, and what their training takes."""

    frozen: FrozenModel
    trials: Sequence[TrainingTrial]
    splits: Splits
    spec: StudySpec
    total_steps: int
    recorder: Recorder
    probe: Probe
    check_stop: Callable[[], None]
    """Raises when the run should stop; called between micro-batches."""
    rungs: Rungs = field(default_factory=Rungs)
    """Where learning rates that fell behind stop."""
    base_nats: Sequence[float] | None = None
    """Nats of each held-out row before the first step, where the base has been evaluated before."""
    places: Mapping[str, int] = field(default_factory=dict)
    """Each trial's place in the study's plan, by trial id."""


def train_group(group: TrialGroup) -> None:
    """Train the trials from where they are to the end; evaluate at the start, in between and at the end.

    A trial that diverges, or whose learning rate falls behind at a rung, leaves the group with its curve kept; the
    others go on with the numbers they have alone.
    """
    evaluated = {*evaluation_steps(group.spec, group.total_steps), *group.rungs.steps}
    active = [trial for trial in group.trials if not trial.has_left]
    step = first = active[0].steps_done if active else group.total_steps
    group.frozen.attach([trial.adapter for trial in active])
    while active:
        if step in evaluated:
            active = _evaluate(group, active, step)
            active = _stop_at_rung(group, active, step)
        if step == group.total_steps or not active:
            break
        records = train_step(
            group.frozen,
            active,
            group.splits.train,
            group.spec,
            total_steps=group.total_steps,
            probe=group.probe,
            warmup=step - first < WARMUP_STEPS,
            check_stop=group.check_stop,
            group=group.places.get(active[0].record.trial_id, 0),
        )
        step += 1
        group.recorder.steps(records)
        active = _drop_ended(group, active)
        group.recorder.checkpoint_if_due(group.trials)
    if active:
        group.recorder.ended(active, [trial.outcome(group.total_steps) for trial in active])


def _stop_at_rung(group: TrialGroup, active: Sequence[TrainingTrial], step: int) -> list[TrainingTrial]:
    losses = {trial.record.trial_id: trial.eval_loss for trial in active if trial.eval_loss is not None}
    trials_to_stop = group.rungs.trials_to_stop(step, [trial.record for trial in group.trials], losses)
    for trial in active:
        trial.stopped = trials_to_stop.get(trial.record.trial_id)
    return _drop_ended(group, active)


def _drop_ended(group: TrialGroup, active: Sequence[TrainingTrial]) -> list[TrainingTrial]:
    trials_to_stop = [trial for trial in active if trial.has_left]
    remaining = [trial for trial in active if not trial.has_left]
    if trials_to_stop:
        group.recorder.ended(trials_to_stop, [trial.outcome(group.total_steps) for trial in trials_to_stop])
        group.frozen.attach([trial.adapter for trial in remaining])
    return remaining


def _evaluate(group: TrialGroup, active: Sequence[TrainingTrial], step: int) -> list[TrainingTrial]:
    """Evaluate each trial and return those that can go on.

    Before the first step all of them are the base, which is evaluated once in a study. A held-out loss that is not
    finite ends the trial; after the last step no gradient would show it.
    """
    held_out = group.splits.eval
    if not held_out:  # a benchmark times the training alone
        return list(active)
    targets = tuple(example.n_targets for example in held_out)
    known = group.base_nats if step == 0 else None
    found = ExampleScores(nats=tuple(known), correct_tokens=None, seconds=0.0) if known else None
    for index, trial in enumerate(active):
        if step > 0 or found is None:
            found = evaluate(
                group.frozen,
                index if step > 0 else BASE_ONLY,
                held_out,
                group.spec,
                check_stop=group.check_stop,
                count_correct=step in {0, group.total_steps},
            )
        if not all(map(math.isfinite, found.nats)):
            trial.diverged = Message("trial.eval_not_finite", step=step)
            continue
        record = EvalRecord(
            trial_id=trial.record.trial_id,
            step=step,
            example_nats=found.nats,
            example_target_tokens=targets,
            example_correct_tokens=found.correct_tokens,
            seconds=found.seconds,
        )
        trial.eval_loss = record.loss
        group.recorder.evaluation(record)
    return _drop_ended(group, active)

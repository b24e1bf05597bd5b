"""Study state and trial states, as pure functions of the records."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lorascope.message import Message
from lorascope.records import NOT_COMPARED, SETTLED, UNSUCCESSFUL, EvalRecord, TrialOutcome, TrialRecord
from lorascope.search.best import best_settings
from lorascope.search.steps import evaluation_steps
from lorascope.spec.schema import StudySpec

State = Literal["preparing", "running", "interrupted", "finished", "failed"]
_OPEN = ("not_started", "running")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialStatus:
    """How a trial stands."""

    trial: TrialRecord
    outcome: str
    """A TrialState of summary.json."""
    message: Message | None
    steps: int
    evaluation: EvalRecord | None
    """Its last evaluation."""

    @property
    def is_open(self) -> bool:
        """Return True until the trial ends."""
        return self.outcome in _OPEN


def trial_status(
    trial: TrialRecord, outcome: TrialOutcome | None, last_step: int, evaluation: EvalRecord | None = None
) -> TrialStatus:
    """Combine a trial's records. While it runs, its steps are counted; afterwards its outcome says how many it did."""
    state = outcome.state if outcome else "running" if last_step else "not_started"
    steps = outcome.steps if outcome and state != "running" else last_step
    message = outcome.message if outcome else None
    return TrialStatus(trial=trial, outcome=state, message=message, steps=steps, evaluation=evaluation)


def study_state(trials: Sequence[TrialStatus], *, running: bool, left_open: bool) -> State:
    """Return the state of a study.

    Args:
        trials: trials planned so far; empty while the run prepares.
        running: whether a run is active.
        left_open: whether the last run ended without closing the study: its lock or checkpoints still exist.
    """
    if running:
        return "running" if trials else "preparing"
    if not trials or any(trial.is_open for trial in trials):
        return "interrupted"
    if any(trial.outcome in UNSUCCESSFUL - SETTLED for trial in trials) or all(t.outcome == "diverged" for t in trials):
        return "failed"
    return "interrupted" if left_open else "finished"


def best_trials(trials: Sequence[TrialStatus]) -> tuple[str, ...]:
    """Return the ids of the trials of each rank (of a set) at its best setting so far; all while no rank has one."""
    losses = {
        trial.trial.trial_id: trial.evaluation.loss
        for trial in trials
        if trial.outcome not in NOT_COMPARED and trial.evaluation and trial.evaluation.step and trial.evaluation.loss
    }
    records = [trial.trial for trial in trials]
    settings = best_settings(records, losses)
    return tuple(trial.trial_id for trial in records if settings.get(trial.arm, trial.setting) == trial.setting)


def evaluated(trials: Sequence[TrialStatus], spec: StudySpec, total_steps: int) -> tuple[int, int] | None:
    """Return how many trials of the group are evaluated at its step, and their number; None outside an evaluation."""
    group = [trial for trial in trials if trial.is_open]
    steps = {trial.steps for trial in group}
    if len(steps) != 1 or not steps <= set(evaluation_steps(spec, total_steps)):
        return None
    done = sum(trial.evaluation is not None and trial.evaluation.step in steps for trial in group)
    return (done, len(group)) if done < len(group) else None

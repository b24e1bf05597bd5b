"""Whether a study runs, and how long it still will: pure functions of what its store and its folder say."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lorascope.message import Message
from lorascope.records import ResolvedStudy, TrialOutcome, TrialRecord
from lorascope.search.steps import evaluation_steps
from lorascope.spec.schema import StudySpec

State = Literal["preparing", "running", "interrupted", "finished", "failed"]
QUIET_SECONDS = 15.0
"""A run writes a reading of its process every second; one that wrote nothing for this long is taken for gone."""
_OPEN = ("not_started", "running")
_FAILED = ("oom", "failed")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialStand:
    """One trial as it stands."""

    trial: TrialRecord
    outcome: str
    """A TrialState of summary.json."""
    message: Message | None
    steps: int


def stand(trial: TrialRecord, outcome: TrialOutcome | None, last_step: int) -> TrialStand:
    """Put together what is known of a trial; its records know its steps while it runs, its outcome afterwards."""
    state = outcome.state if outcome else "running" if last_step else "not_started"
    steps = outcome.steps if outcome and state != "running" else last_step
    return TrialStand(trial=trial, outcome=state, message=outcome.message if outcome else None, steps=steps)


def state_of(trials: Sequence[TrialStand], *, alive: bool, left_open: bool) -> State:
    """Say how the study stands.

    Args:
        trials: those planned so far; none before the run has prepared itself.
        alive: whether a run is at work.
        left_open: whether a run went away without closing the study: its lock or its checkpoints are still there.
    """
    if alive:
        return "running" if trials else "preparing"
    if not trials or any(trial.outcome in _OPEN for trial in trials):
        return "interrupted"
    if any(trial.outcome in _FAILED for trial in trials) or all(t.outcome == "diverged" for t in trials):
        return "failed"
    return "interrupted" if left_open else "finished"


def seconds_left(
    trials: Iterable[TrialStand],
    spec: StudySpec,
    resolved: ResolvedStudy | None,
    *,
    step_seconds: float | None,
    evaluation_seconds: Mapping[str, float],
) -> float | None:
    """Estimate the time to the end of the pack in training; None where it cannot be told.

    Args:
        trials: all trials; those that are open train together.
        spec: the study.
        facts: what the study is; None while it is being prepared.
        step_seconds: wall time of one of the pack's recent steps.
        evaluation_seconds: how long each trial's last evaluation took, by trial id.
    """
    group = [trial for trial in trials if trial.outcome in _OPEN]
    in_turns = len({trial.steps for trial in group}) > 1  # where memory does not hold them all
    if not group or resolved is None or step_seconds is None or in_turns:
        return None
    done = min(trial.steps for trial in group)
    rounds = sum(step > done for step in evaluation_steps(spec, resolved.total_steps))
    each_round = sum(evaluation_seconds.get(trial.trial.trial_id, 0.0) for trial in group)
    return (resolved.total_steps - done) * step_seconds + rounds * each_round

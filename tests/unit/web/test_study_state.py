import itertools

import pytest

from lorascope.records import EvalRecord, ResolvedStudy, TrialOutcome
from lorascope.search.trials import plan_trials
from lorascope.spec.schema import StudySpec
from lorascope.web.state import TrialStatus, seconds_left, study_state, trial_status
from support.messages import verbatim

SPEC = StudySpec(ranks=(8, 128), eval_steps=25)
TRIALS = plan_trials(SPEC)


def evaluation(seconds: float) -> EvalRecord:
    return EvalRecord(trial_id="", step=25, example_nats=(1.0,), example_target_tokens=(1,), seconds=seconds)


def statuses(*outcomes: str, steps: int = 10, evaluations: tuple[EvalRecord | None, ...] = ()) -> list[TrialStatus]:
    trials = zip(itertools.cycle(TRIALS), outcomes, evaluations or itertools.repeat(None), strict=False)
    return [
        TrialStatus(trial=trial, outcome=outcome, message=None, steps=steps, evaluation=found)
        for trial, outcome, found in trials
    ]


@pytest.mark.parametrize(
    ("outcomes", "running", "left_open", "state"),
    [
        ((), True, False, "preparing"),
        ((), False, False, "interrupted"),
        (("running", "running"), True, False, "running"),
        (("running", "finished"), False, False, "interrupted"),
        (("not_started",), False, False, "interrupted"),
        (("finished", "finished"), True, True, "running"),
        (("finished", "finished"), False, True, "interrupted"),
        (("finished", "stopped", "diverged"), False, False, "finished"),
        (("finished", "oom"), False, False, "failed"),
        (("failed", "failed"), False, False, "failed"),
        (("diverged", "diverged"), False, False, "failed"),
    ],
)
def test_study_state(outcomes: tuple[str, ...], running: bool, left_open: bool, state: str) -> None:
    assert study_state(statuses(*outcomes), running=running, left_open=left_open) == state


def test_trial_status_has_the_steps_of_its_outcome() -> None:
    """The step at which it diverged is on record, but was not done."""
    outcome = TrialOutcome(trial_id="r8", state="diverged", steps=4, message=verbatim("why"))
    assert trial_status(TRIALS[0], outcome, 5).steps == 4
    assert trial_status(TRIALS[0], TrialOutcome(trial_id="r8", state="running", steps=0, message=None), 5).steps == 5
    assert trial_status(TRIALS[0], None, 0).outcome == "not_started"


def test_seconds_left_counts_steps_and_evaluations(resolved: ResolvedStudy) -> None:
    """100 steps, 40 done: 60 of 2 s, and evaluations after 50, 75 and 100 that take 3 s and 4 s."""
    trials = statuses("running", "running", steps=40, evaluations=(evaluation(3.0), evaluation(4.0)))
    left = seconds_left(trials, SPEC, resolved, step_seconds=2.0)
    assert left == pytest.approx(60 * 2 + 3 * 7)


def test_seconds_left_is_none_without_a_basis(resolved: ResolvedStudy) -> None:
    running, ended = statuses("running", "running"), statuses("finished", "finished")
    assert seconds_left(running, SPEC, None, step_seconds=2.0) is None
    assert seconds_left(running, SPEC, resolved, step_seconds=None) is None
    assert seconds_left(ended, SPEC, resolved, step_seconds=2.0) is None

import itertools

import pytest

from lorascope.records import TrialOutcome
from lorascope.search.trials import plan_trials
from lorascope.spec.schema import StudySpec
from lorascope.web.state import TrialStatus, study_state, trial_status
from support.messages import verbatim

SPEC = StudySpec(ranks=(8, 128), eval_steps=25)
TRIALS = plan_trials(SPEC)


def statuses(*outcomes: str) -> list[TrialStatus]:
    return [
        TrialStatus(trial=trial, outcome=outcome, message=None, steps=10, evaluation=None)
        for trial, outcome in zip(itertools.cycle(TRIALS), outcomes, strict=False)
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

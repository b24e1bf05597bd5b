"""When a round counts as too slow for its time budget, and the pace that fewer steps follow from."""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from lorascope.records import StepRecord, TrialRecord
from lorascope.run.round import RoundTrainer
from lorascope.run.time_budget import TooSlow
from lorascope.search.halving import Rungs
from lorascope.search.rounds import SearchRound
from lorascope.search.work import TRAINING, Sizes
from lorascope.spec.schema import StudySpec

SIZES = Sizes(total_steps=100, step_tokens=1000.0, heaviest_tokens=1000.0, eval_tokens=0.0, eval_examples=1)
TRIALS = tuple(
    TrialRecord(trial_id=f"r{rank}", rank=rank, lora_alpha=32.0, scale=1.0, learning_rate=1e-3, seed=0)
    for rank in (8, 16, 64)
)
SPEC = StudySpec(ranks=(8, 16, 64), learning_rates=(1e-3,), early_exit=False)
STEP_SECONDS = 2.0


def trainer(*, at_once: int, waiting: Sequence[TrialRecord] = (), finished: Sequence[TrialRecord] = ()) -> RoundTrainer:
    """A round of three trials of equal work, of which a group has taken twenty steps.

    Of its time 100 s are left, of which the end keeps 30 and the report 10.
    """
    made: Any = object.__new__(RoundTrainer)
    outcomes = {trial.trial_id: SimpleNamespace(trial_id=trial.trial_id, state="finished") for trial in finished}
    made._run = SimpleNamespace(
        study=SimpleNamespace(spec=SPEC),
        clock=SimpleNamespace(left_for_training=70.0, left_for_report=90.0),
        store=SimpleNamespace(outcomes=lambda: outcomes),
    )
    made._round = SearchRound(number=0, trials=TRIALS, rungs=Rungs(), base_nats=None)
    made._shards = deque([SimpleNamespace(trials=tuple(waiting), steps_done=0)] if waiting else [])
    made._most_running = at_once
    made._recent = defaultdict(lambda: deque([(STEP_SECONDS, SIZES.train_step(("", 8)))] * 20))
    found: RoundTrainer = made
    return found


def step_10(seconds: float = STEP_SECONDS) -> list[StepRecord]:
    return [
        StepRecord(
            trial_id="r8", step=10, nats=1.0, target_tokens=1, tokens=1, learning_rate=1e-3, grad_norm=1.0,
            seconds=seconds, warmup=False, group=0,
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("at_once", "waiting", "needed"),
    [
        (2, (), 90 * STEP_SECONDS),
        (1, TRIALS[1:], (90 + 200) * STEP_SECONDS),
        (2, TRIALS[1:], (90 + 200 / 2) * STEP_SECONDS),
    ],
)
def test_groups_that_wait_count(at_once: int, waiting: Sequence[TrialRecord], needed: float) -> None:
    trainer(at_once=at_once, waiting=waiting)._check_pace(step_10(), SIZES, needed / 1.09)
    with pytest.raises(TooSlow):
        trainer(at_once=at_once, waiting=waiting)._check_pace(step_10(), SIZES, needed / 1.11)


@pytest.mark.parametrize(("at_once", "heaviest"), [(1, 3), (2, 2), (3, 1)])
def test_pace_is_that_of_the_heaviest_group(at_once: int, heaviest: int) -> None:
    """Of three equal trials in two groups, one group has two: the round takes as long as these."""
    with pytest.raises(TooSlow) as slow:
        trainer(at_once=at_once)._check_pace(step_10(), SIZES, 1.0)
    round_work = len(TRIALS) * SIZES.total_steps * TRAINING * SIZES.step_tokens
    assert slow.value.token_seconds * round_work == pytest.approx(heaviest * SIZES.total_steps * STEP_SECONDS)


def test_a_round_in_which_a_group_has_ended_is_not_begun_anew() -> None:
    trainer(at_once=2, finished=TRIALS[1:2])._check_pace(step_10(), SIZES, 1.0)


def test_a_first_answer_may_take_the_time_of_the_analyses() -> None:
    assert trainer(at_once=2)._time_left() == 90.0
    assert trainer(at_once=2, finished=TRIALS[1:2])._time_left() == 70.0
    later = trainer(at_once=2)
    later._round = replace(later._round, number=1)
    assert later._time_left() == 70.0


def test_a_machine_that_is_busy_for_a_moment_costs_no_steps() -> None:
    """The pace is averaged over a twentieth of the time left, 15 s here."""
    begun = trainer(at_once=2)
    slow = step_10(3 * STEP_SECONDS)
    begun._check_pace(slow, SIZES, 300.0)
    with pytest.raises(TooSlow):
        begun._check_pace(slow, SIZES, 300.0)

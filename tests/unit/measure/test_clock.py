"""The step clock counts steps only."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from lorascope.engine.checkpoint import load_checkpoint, save_checkpoint
from lorascope.engine.loop import TrialGroup, train_group
from lorascope.engine.trial import TrainingTrial
from lorascope.errors import Interrupted
from lorascope.measure import clock
from lorascope.measure.clock import StepClock
from lorascope.records import EvalRecord, StepRecord
from lorascope.search.trials import plan_trials
from support.groups import Kept, make_spec, prepared
from support.tiny_models import make_splits


class Hands:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_step_clock_times_only_steps() -> None:
    hands = Hands()
    timer = StepClock(torch.device("cpu"), hands)
    for length, between, tokens in ((0.5, 7.0, 30), (0.25, 9.0, 20)):
        timer.step_begins()
        hands.seconds += length
        assert timer.step_ends(tokens=tokens) == length
        hands.seconds += between
    assert timer.step_seconds == [0.5, 0.25]
    assert timer.step_tokens == [30, 20]


def test_step_clock_synchronises_before_each_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    hands, waited = Hands(), []

    def synchronise(device: torch.device) -> None:
        waited.append(device)
        hands.seconds += 2.0  # what was queued still has to be done

    monkeypatch.setattr(clock, "synchronise", synchronise)
    timer = StepClock(torch.device("cpu"), hands)
    timer.step_begins()
    hands.seconds += 1.0
    assert timer.step_ends(tokens=1) == 3.0
    assert waited == [torch.device("cpu")] * 2


def test_step_clock_ignores_an_abandoned_step() -> None:
    hands = Hands()
    timer = StepClock(torch.device("cpu"), hands)
    timer.step_begins()
    hands.seconds += 50.0
    timer.step_begins()
    hands.seconds += 1.0
    assert timer.step_ends(tokens=4) == 1.0
    assert timer.step_seconds == [1.0]


def test_step_clock_asserts_that_a_step_began() -> None:
    timer = StepClock(torch.device("cpu"), Hands())
    with pytest.raises(AssertionError, match="had not begun"):
        timer.step_ends(tokens=1)


MICROBATCH_SECONDS = 0.25


class Watched(StepClock):
    """The clock, and the time every step must have taken by its count of micro-batches."""

    def __init__(self, hands: Hands) -> None:
        super().__init__(torch.device("cpu"), hands)
        self.microbatches = 0
        self.expected: list[float] = []

    def step_begins(self) -> None:
        self.microbatches = 0
        super().step_begins()

    def step_ends(self, *, tokens: int) -> float:
        self.expected.append(self.microbatches * MICROBATCH_SECONDS)
        return super().step_ends(tokens=tokens)


class SlowLog(Kept):
    """Writes records at its leisure: longer with every step, and long at an evaluation or a checkpoint."""

    def __init__(self, hands: Hands) -> None:
        super().__init__()
        self.hands = hands

    def steps(self, records: Sequence[StepRecord]) -> None:
        super().steps(records)
        self.hands.seconds += records[0].step ** 2 * 0.125

    def evaluation(self, record: EvalRecord) -> None:
        super().evaluation(record)
        self.hands.seconds += 30.0

    def checkpoint_if_due(self, trials: Sequence[TrainingTrial]) -> None:
        self.hands.seconds += 1000.0


def test_step_times_are_exact_across_logging_evaluations_and_resume(tmp_path: Path) -> None:
    spec, frozen, state = make_spec(tokens_per_pass=24, eval_steps=2), prepared("llama"), tmp_path / "group.safetensors"
    kept: list[StepRecord] = []
    expected: list[float] = []
    for stop_in_step in (4, None):  # stopped within the fourth step, then continued by another process
        hands = Hands()
        timer, log = Watched(hands), SlowLog(hands)
        trials = [TrainingTrial(record, spec, frozen.layers, torch.float64) for record in plan_trials(spec)]
        if state.exists():
            load_checkpoint(state, trials)

        def microbatches(hands: Hands = hands, timer: Watched = timer, stop: int | None = stop_in_step) -> None:
            """Advance the clock: called before every micro-batch and in its layers, in training and evaluation."""
            timer.microbatches += 1
            hands.seconds += MICROBATCH_SECONDS
            if stop is not None and len(timer.expected) == stop - 1 and timer.microbatches == 2:
                raise Interrupted("stopped as asked")

        group = TrialGroup(
            frozen=frozen, trials=trials, splits=make_splits(), spec=spec, total_steps=6, recorder=log, probe=timer,
            check_stop=microbatches,
        )  # fmt: skip
        if stop_in_step is None:
            train_group(group)
        else:
            with pytest.raises(Interrupted):
                train_group(group)
            save_checkpoint(state, trials)
        kept += [record for record in log.step_records if record.trial_id == "r2"]
        expected += timer.expected
        assert timer.step_seconds == timer.expected
    assert [record.step for record in kept] == [1, 2, 3, 4, 5, 6]
    assert [record.seconds for record in kept] == expected
    assert len(set(expected)) > 1
    assert [record.warmup for record in kept] == [True, False, False, True, False, False]
    assert math.fsum(expected) < 400  # the logs and evaluations between the steps took thousands of these seconds

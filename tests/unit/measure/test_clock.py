import pytest
import torch

from lorascope.measure import clock
from lorascope.measure.clock import StepClock


class Hands:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_it_times_steps_and_nothing_between_them() -> None:
    hands = Hands()
    timer = StepClock(torch.device("cpu"), hands)
    for length, between, tokens in ((0.5, 7.0, 30), (0.25, 9.0, 20)):
        timer.step_begins()
        hands.seconds += length
        assert timer.step_ends(tokens=tokens) == length
        hands.seconds += between
    assert timer.step_seconds == [0.5, 0.25]
    assert timer.step_tokens == [30, 20]


def test_it_waits_for_the_device_before_it_looks_at_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_step_that_was_abandoned_is_not_counted() -> None:
    hands = Hands()
    timer = StepClock(torch.device("cpu"), hands)
    timer.step_begins()
    hands.seconds += 50.0
    timer.step_begins()
    hands.seconds += 1.0
    assert timer.step_ends(tokens=4) == 1.0
    assert timer.step_seconds == [1.0]


def test_an_end_without_a_beginning_is_our_own_bug() -> None:
    timer = StepClock(torch.device("cpu"), Hands())
    with pytest.raises(AssertionError, match="had not begun"):
        timer.step_ends(tokens=1)

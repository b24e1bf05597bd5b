"""Step timer on a device-synchronised clock."""

import time
from collections.abc import Callable

import torch

from lorascope.engine.instrumentation import Phase


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class StepClock:
    """Probe that times each step, from an idle device to an idle device.

    Args:
        device: synchronised before each reading of the clock.
        now: clock in seconds, replaced in tests.
    """

    def __init__(self, device: torch.device, now: Callable[[], float] = time.perf_counter) -> None:
        self._device = device
        self._now = now
        self._began: float | None = None
        self.step_seconds: list[float] = []
        """Seconds of every step, without what happens between steps, such as evaluations."""
        self.step_tokens: list[int] = []

    def step_begins(self) -> None:
        """Start the clock."""
        synchronise(self._device)
        self._began = self._now()

    def phase_begins(self, phase: Phase) -> None:
        """Do nothing: only whole steps are timed, since the phases of one overlap on a GPU."""

    def step_ends(self, *, tokens: int) -> float:
        """Stop the clock and return the step's seconds."""
        assert self._began is not None, "a step ended that had not begun"
        synchronise(self._device)
        seconds = self._now() - self._began
        self._began = None
        self.step_seconds.append(seconds)
        self.step_tokens.append(tokens)
        return seconds

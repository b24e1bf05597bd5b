"""Time of optimizer steps on a clock that waits for the device and owns its count."""

import time
from collections.abc import Callable

import torch

from lorascope.engine.instrumentation import Phase


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all it was given; the CPU is always done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class StepClock:
    """A Probe that times each step from the device's being idle to its being idle again.

    Args:
        device: what has to be waited for.
        now: source of time in seconds, for tests.
    """

    def __init__(self, device: torch.device, now: Callable[[], float] = time.perf_counter) -> None:
        self._device = device
        self._now = now
        self._began: float | None = None
        self.step_seconds: list[float] = []
        """Seconds of every step, in order; evaluations, saving and anything else between steps are no part of it."""
        self.step_tokens: list[int] = []

    def step_begins(self) -> None:
        """Start the clock."""
        synchronise(self._device)
        self._began = self._now()

    def phase_begins(self, phase: Phase) -> None:
        """Let it pass: the clock times whole steps, since on a GPU the parts of one overlap."""

    def step_ends(self, *, tokens: int) -> float:
        """Stop the clock and return the step's seconds."""
        assert self._began is not None, "a step ended that had not begun"
        synchronise(self._device)
        seconds = self._now() - self._began
        self._began = None
        self.step_seconds.append(seconds)
        self.step_tokens.append(tokens)
        return seconds

"""Protocol for instrumenting the training loop."""

from typing import Literal, Protocol

Phase = Literal["forward", "backward", "optimizer"]


class Probe(Protocol):
    """Called at the beginning of each phase of a step; must be cheap."""

    def step_begins(self) -> None:
        """An optimizer step begins."""

    def phase_begins(self, phase: Phase) -> None:
        """A phase of the step begins; each micro-batch has a forward and a backward phase."""

    def step_ends(self, *, tokens: int) -> float:
        """The step ended after ``tokens`` real tokens; return its seconds."""

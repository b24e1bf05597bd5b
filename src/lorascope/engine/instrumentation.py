"""What the loop tells whoever measures it."""

from typing import Literal, Protocol

Phase = Literal["forward", "backward", "optimizer"]


class Probe(Protocol):
    """Hears of the phases of a step at the moment they begin; must be cheap."""

    def step_begins(self) -> None:
        """Hear that an optimizer step begins."""

    def phase_begins(self, phase: Phase) -> None:
        """Hear that a part of it begins; every pass has a forward and a backward of its own."""

    def step_ends(self, *, tokens: int) -> float:
        """Hear that it ended, having sent ``tokens`` real tokens through the model; return its seconds."""

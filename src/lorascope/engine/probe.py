"""What the loop tells whoever measures it."""

from typing import Protocol


class Probe(Protocol):
    """Hears of the phases of a step at the moment they begin; must be cheap."""

    def step_begins(self) -> None:
        """Hear that an optimizer step begins."""

    def step_ends(self, *, tokens: int) -> float:
        """Hear that it ended, having sent ``tokens`` real tokens through the model; return its seconds."""

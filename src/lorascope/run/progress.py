"""What a running study tells whoever watches it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lorascope.records import EvalRecord, ResolvedStudy, StepRecord, TrialOutcome, TrialRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class SoloResult:
    """Measured cost of a rank alone."""

    rank: int
    step_seconds: float
    """Median of the measured steps."""
    peak_bytes: int
    """Peak memory of a training step."""


class Progress(Protocol):
    """Receives events in the order they happen, from the thread that trains. Must return quickly and not raise."""

    def phase(self, text: str) -> None:
        """Name what is being done now, such as "loading the model"."""

    def note(self, text: str) -> None:
        """Say something the user should know, such as a fallback that was taken."""

    def begin(self, resolved: ResolvedStudy, trials: Sequence[TrialRecord], done: Sequence[StepRecord]) -> None:
        """Announce the trials of a pack, and the steps of theirs that an earlier run did, in order.

        A study has one pack, and further ones where its learning rates are looked for.
        """

    def cost(self, result: SoloResult) -> None:
        """Report the cost of a rank alone."""

    def step(self, records: Sequence[StepRecord]) -> None:
        """Report one step of every trial that is still training."""

    def evaluation(self, record: EvalRecord) -> None:
        """Report a held-out evaluation."""

    def outcome(self, outcome: TrialOutcome) -> None:
        """Report that a trial ended."""

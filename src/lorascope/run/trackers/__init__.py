"""Trackers: they follow a run through its events, as a terminal view does; ``experiment`` has those of experiments."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from lorascope.records import EvalRecord, LookRecord, ResolvedStudy, StepRecord, TrialOutcome, TrialRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class SoloResult:
    """Measured cost of a rank alone."""

    rank: int
    step_seconds: float
    """Median of the measured steps."""
    peak_bytes: int
    """Peak memory of a training step."""
    targets: str = ""
    """Name of its set of target modules; empty where the study has one."""


class Tracker(Protocol):
    """Receives the events of a run in their order, from the thread that trains. Must return quickly and not raise."""

    def phase(self, text: str) -> None:
        """Begin a phase, such as "loading the model"."""

    def progress(self, share_done: float, seconds_left: float) -> None:
        """Report the share of the run's time that has passed, and the seconds until the report; once a second."""

    def note(self, text: str) -> None:
        """Say something that the user should know, such as a fallback that was taken."""

    def warning(self, text: str) -> None:
        """Say something that may make the whole study useless, such as most rows dropped, before it costs time."""

    def begin(self, resolved: ResolvedStudy, trials: Sequence[TrialRecord], done: Sequence[StepRecord]) -> None:
        """Begin a round of the search.

        Args:
            resolved: the study.
            trials: those of the round.
            done: their steps that an earlier run took, each trial's in order.
        """

    def solo_cost(self, result: SoloResult) -> None:
        """Report the cost of a rank alone."""

    def step(self, records: Sequence[StepRecord]) -> None:
        """Report one step of every trial that still trains."""

    def evaluation(self, record: EvalRecord) -> None:
        """Report a held-out evaluation."""

    def outcome(self, outcome: TrialOutcome) -> None:
        """Report the state of a trial: it begins to train, or ended."""

    def look(self, look: LookRecord) -> None:
        """Report a look of a study that decides how long it goes on."""

    def end(self) -> None:
        """End: the run is complete, was stopped or failed, and nothing follows."""


class _TrackerGroup:
    """Calls the same method of several trackers."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = trackers

    def __getattr__(self, event: str) -> Callable[..., None]:
        def tell_all(*arguments: object) -> None:
            for tracker in self._trackers:
                getattr(tracker, event)(*arguments)

        return tell_all


def join_trackers(trackers: Sequence[Tracker]) -> Tracker:
    """Return one tracker that hands every event on to all of these, in their order."""
    return cast("Tracker", _TrackerGroup(trackers))

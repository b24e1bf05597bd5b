"""Experiment trackers: what they are told of a study, and which there are.

To add one, write a module here with a class that follows ``ExperimentTracker`` and name it in ``TRACKERS``.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from typing import Literal, Protocol

from lorascope.errors import InputError
from lorascope.text.tables.table import Table

RunState = Literal["finished", "failed", "interrupted"]
"""How a run ended; one that was interrupted may be continued."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackedRun:
    """One run of a tracker: a trial, or the study as a whole."""

    run_id: str
    """The same each time that the study is reported; letters and digits."""
    name: str
    study: str
    """Name of the group: that of the study's folder, and a part of the study's id."""
    study_run_id: str
    """The run of the study as a whole."""
    axis: str
    """The value of each row that the other values are drawn over."""
    config: Mapping[str, object]
    """Settings, as JSON has them."""

    @property
    def is_trial(self) -> bool:
        """Return False for the run of the whole study."""
        return self.run_id != self.study_run_id


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """Values that belong together; a run's rows have ascending steps, and none has a step twice."""

    step: int
    values: Mapping[str, float]
    """By name, all finite."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyResult:
    """What the run of the whole study shows when all has been trained."""

    headline: str
    """The verdict in a sentence or two."""
    ranks: Table
    charts: Mapping[str, Path]
    """PNG files by name."""
    files: tuple[Path, ...]
    """The report and the summary."""

    @property
    def ranks_markdown(self) -> str:
        """Return the table of ranks as Markdown."""
        rows = (self.ranks.header, ["---"] * len(self.ranks.header), *self.ranks.rows)
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)


class ExperimentTracker(Protocol):
    """Writes the runs of a study where people look at them; each method may raise, and may take its time.

    It is made with the study's folder, in a process of its own.
    """

    def last_step(self, run: TrackedRun) -> int:
        """Return the step of the last row that the tracker has of a run; -1 where it has none."""

    def log(self, run: TrackedRun, rows: Sequence[Row]) -> None:
        """Add rows to a run, which is made where it is not there yet."""

    def result(self, run: TrackedRun, result: StudyResult) -> None:
        """Add the result to the run of the whole study."""

    def close(self, run: TrackedRun, state: RunState) -> None:
        """End a run, or let it rest until it is continued; it may be one to which nothing was added."""

    def where(self) -> str:
        """Say where the runs are, by an address or a command, once one has been made."""


@dataclass(frozen=True, slots=True)
class RegisteredTracker:
    """Where a tracker is."""

    path: str
    """A class that follows ``ExperimentTracker``, as ``module:class``."""
    library: str
    """The module that it needs; an extra of the package installs it where it is one of ours."""


TRACKERS: dict[str, RegisteredTracker] = {
    "wandb": RegisteredTracker("lorascope.run.trackers.wandb:WandbTracker", "wandb"),
    "mlflow": RegisteredTracker("lorascope.run.trackers.mlflow:MlflowTracker", "mlflow"),
    "tensorboard": RegisteredTracker("lorascope.run.trackers.tensorboard:TensorboardTracker", "tensorboard"),
    "trackio": RegisteredTracker("lorascope.run.trackers.trackio:TrackioTracker", "trackio"),
}
"""By the name that ``report_to`` takes."""


def check_trackers(names: Iterable[str]) -> None:
    """Raise InputError where there is no tracker of a name, or its library is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise InputError(f"there is no tracker {name!r}", remedy=f"choose from: {', '.join(TRACKERS)}")
        found = find_spec(TRACKERS[name].library)
        if found is None or found.origin is None:  # a folder of that name, such as W&B's own, is no library
            raise InputError(
                f"the tracker {name} is not installed",
                remedy=f"install lorascope with its extra, as in: pip install 'lorascope[{name}]'",
            )


def load_tracker(path: str) -> Callable[[Path], ExperimentTracker]:
    """Import a tracker, given as ``module:class``; it is called with the study's folder."""
    made: Callable[[Path], ExperimentTracker] = resolve_name(path)
    return made

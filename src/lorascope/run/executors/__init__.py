"""Executors: they train trial groups on the available devices.

The driver decides and owns the store. An executor takes orders when it has a place for them, trains the group that each
names, saves its checkpoints and adapters to the study's folder, and reports everything else as events. To add one,
write a module here with a class that follows ``Executor`` and name it in ``EXECUTORS``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Protocol

from lorascope.errors import InputError
from lorascope.message import Message
from lorascope.records import AdapterRecord, EvalRecord, StepRecord, TrialOutcome
from lorascope.run.group_shards import GroupShard
from lorascope.run.prepare import PreparedStudy
from lorascope.search.halving import Rungs
from lorascope.spec.schema import StudySpec
from lorascope.store.folder import StudyFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupOrder:
    """Train a group of trials from where it is to the last step."""

    folder: StudyFolder
    """Where the adapters of trials that finish are saved."""
    shard: GroupShard
    places: Mapping[str, int]
    """Each trial's place in the study's plan, by trial id."""
    rungs: Rungs
    base_nats: tuple[float, ...] | None
    """Nats of each held-out row before the first step, where they are known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupBegins:
    """A group is about to be made. Before the first group of a round, every device is free until this is handled."""

    order: GroupOrder


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupReady:
    """A group's adapters are in memory and at the step of its checkpoint."""

    order: GroupOrder
    adapters: tuple[AdapterRecord, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTaken:
    """Every trial that still trains took a step."""

    records: tuple[StepRecord, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialEvaluated:
    """A trial was evaluated on the held-out rows."""

    record: EvalRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialsEnded:
    """Trials ended after one step; the adapters of those that finished are in the folder."""

    outcomes: tuple[TrialOutcome, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupFailed:
    """An error ended a group; nothing of it is in memory any more."""

    order: GroupOrder
    out_of_memory: bool
    message: Message
    steps: Mapping[str, int]
    """Optimizer steps done, by trial id; a trial that was not made yet has none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupEnded:
    """Nothing more comes of an order: its trials ended, or it failed."""

    order: GroupOrder


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerLost:
    """The process that trained a group is gone, by no error of the study; nothing more comes of the order."""

    order: GroupOrder
    worker: str
    """Its name, as in "worker 2"."""
    reason: str
    """Such as "signal 9"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Noted:
    """Something that the user should know."""

    text: str


Event = (
    GroupBegins | GroupReady | StepTaken | TrialEvaluated | TrialsEnded | GroupFailed | GroupEnded | WorkerLost | Noted
)
Emit = Callable[[Event], None]
Take = Callable[[], GroupOrder | None]
"""Returns the next group to train; None where none can begin before something else has happened."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What an executor has for a study."""

    workers: int | None = None
    """Workers, and groups that the trials of a round are split into; None for one of each."""
    parallel: int = 1
    """Speed-up from training groups concurrently: the number of devices."""
    processes: bool = False
    """True where groups train in child processes, whose memory and processor use are the run's."""


class Executor(Protocol):
    """Trains groups of one study; made by calling its class with the prepared study."""

    @staticmethod
    def claim(spec: StudySpec) -> Claim:
        """Find out what is there for a study, before anything is loaded or written.

        Raises:
            InputError: what the executor needs is not there.
        """

    def train(self, take: Take, emit: Emit) -> None:
        """Train groups until there is none left; an error of a group is an event.

        ``emit`` returns when an event's records are in the store. Only then is a checkpoint saved that is as far, so
        that the store is never behind. ``take`` and ``emit`` are called in the caller's thread; what they raise ends
        all groups, and nothing more is saved.

        Raises:
            Interrupted: the executor was told to stop; the state of every group is saved.
            LorascopeError: the state or an adapter cannot be written, or a checkpoint is damaged.
        """

    def stop(self) -> None:
        """Stop the groups that train at the next safe point; called from a signal handler."""

    def close(self) -> None:
        """Give back what the executor holds, such as processes; called once, also after an error."""


EXECUTORS: dict[str, str] = {
    "inline": "lorascope.run.executors.inline:InlineExecutor",
    "process": "lorascope.run.executors.process:ProcessExecutor",
}
"""By name, a class whose instances follow ``Executor``, as ``module:class``."""


def claim_workers(spec: StudySpec) -> Claim:
    """Return what the study's executor has for it; raises InputError where it is not there, or of no known name."""
    return _executor_class(spec.executor).claim(spec)


def make_executor(study: PreparedStudy) -> Executor:
    """Make the study's executor. Raises InputError where there is none of that name."""
    return _executor_class(study.spec.executor)(study)


class _ExecutorClass(Protocol):
    def __call__(self, study: PreparedStudy) -> Executor: ...

    @staticmethod
    def claim(spec: StudySpec) -> Claim: ...


def _executor_class(name: str) -> _ExecutorClass:
    if name not in EXECUTORS:
        raise InputError(f"there is no executor {name!r}", remedy=f"choose one of: {', '.join(EXECUTORS)}")
    found: _ExecutorClass = resolve_name(EXECUTORS[name])
    return found

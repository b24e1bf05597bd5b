"""Executors: they train groups of trials where the hardware is.

The driver decides and owns the store. An executor trains the group that an order names, saves its checkpoints and
adapters to the study's folder, and reports everything else as events. To add one, write a module here with a class
that follows ``Executor`` and name it in ``EXECUTORS``.
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
    """A group is about to be made; the device is free until the event has been handled."""

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
class Noted:
    """Something that the user should know."""

    text: str


Event = GroupBegins | GroupReady | StepTaken | TrialEvaluated | TrialsEnded | GroupFailed | Noted
Emit = Callable[[Event], None]


class Executor(Protocol):
    """Trains groups of one study."""

    def train(self, order: GroupOrder, emit: Emit) -> None:
        """Train a group until all its trials ended or it failed; an error of the group is an event.

        ``emit`` returns when an event's records are in the store. Only then is a checkpoint saved that is as far, so
        that the store is never behind.

        Raises:
            Interrupted: the executor was told to stop; the group's state is saved.
            LorascopeError: the state or an adapter cannot be written, or a checkpoint is damaged.
        """

    def stop(self) -> None:
        """Stop the group that trains at the next safe point; called from a signal handler."""


EXECUTORS: dict[str, str] = {"inline": "lorascope.run.executors.inline:InlineExecutor"}
"""By name, a class whose instances follow ``Executor``, as ``module:class``. It is called with the prepared study."""


def make_executor(name: str, study: PreparedStudy) -> Executor:
    """Make a registered executor. Raises InputError where there is none of that name."""
    if name not in EXECUTORS:
        raise InputError(f"there is no executor {name!r}", remedy=f"choose one of: {', '.join(EXECUTORS)}")
    executor: Executor = resolve_name(EXECUTORS[name])(study)
    return executor

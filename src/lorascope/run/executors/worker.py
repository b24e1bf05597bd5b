"""A worker: a process with its own copy of the base, which trains the groups that are sent to it."""

import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch

from lorascope.errors import LorascopeError
from lorascope.measure.environment import mask_credentials
from lorascope.message import Message as Text
from lorascope.records import ResolvedStudy
from lorascope.run.executors import Event, GroupEnded, GroupFailed, GroupOrder, Noted
from lorascope.run.executors.inline import InlineExecutor, note_smaller_microbatches
from lorascope.run.prepare import prepare_study
from lorascope.run.trackers import join_trackers
from lorascope.spec.schema import StudySpec


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerSetup:
    """What a worker needs to begin."""

    spec: StudySpec
    resolved: ResolvedStudy
    """What the driver found: rows, weights and every automatic choice have to be the same here."""
    device: str
    cores: tuple[int, ...] = ()
    """Cores of the CPU that the worker keeps to; empty for all."""
    threads: int | None = None
    """Threads that it computes with; None for as many as Torch chooses."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderEnded:
    """A worker is done with an order, or could not begin."""

    error: LorascopeError | None
    """None after a group that ended; its own errors are events."""


Message = Event | OrderEnded


class Worker:
    """Trains one group after another; raises InputError where rows, model or device are not there as for the driver."""

    def __init__(self, setup: WorkerSetup) -> None:
        if setup.cores and sys.platform == "linux":
            os.sched_setaffinity(0, setup.cores)
        if setup.threads is not None:
            torch.set_num_threads(setup.threads)
        spec = setup.spec.model_copy(update={"device": setup.device, "executor": "inline"})
        before = replace(setup.resolved, device=setup.device)
        study = prepare_study(spec, before, join_trackers([]))
        self._study = replace(study, spec=setup.spec, resolved=before)
        self._inline = InlineExecutor(self._study)

    def stop(self) -> None:
        """Save the state of the group that trains, at the next safe point, and train nothing more."""
        self._inline.stop()

    def train(self, order: GroupOrder, emit: Callable[[Event], None]) -> OrderEnded:
        """Train a group; an error that is not the group's own ends the order."""
        orders = [order]
        self._study.frozen.limit.on_lower = partial(
            note_smaller_microbatches, self._study.device, lambda text: emit(Noted(text=text))
        )
        try:
            self._inline.train(lambda: orders.pop() if orders else None, emit)
        except LorascopeError as error:
            return OrderEnded(error=error)
        return OrderEnded(error=None)


class FailedWorker:
    """A worker that could not start: each group that is sent to it fails with that error."""

    def __init__(self, error: str) -> None:
        self._error = error

    def stop(self) -> None:
        """Do nothing: no group trains."""

    def train(self, order: GroupOrder, emit: Callable[[Event], None]) -> OrderEnded:
        """Report the error of the start as that of the group."""
        message = Text("verbatim", text=self._error)
        emit(GroupFailed(order=order, out_of_memory=False, message=message, steps={}))
        emit(GroupEnded(order=order))
        return OrderEnded(error=None)


def start_worker(setup: WorkerSetup) -> Worker | FailedWorker:
    """Make a worker; an error of its start is reported by all of its groups, as another start would end the same way.

    Raises:
        LorascopeError: rows, model or device are not there as for the driver.
    """
    try:
        return Worker(setup)
    except LorascopeError:
        raise
    except Exception:  # noqa: BLE001 - as where a trial runs: any failure becomes the outcome of trials
        return FailedWorker(mask_credentials(traceback.format_exc()))

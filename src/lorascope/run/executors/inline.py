"""The inline executor: groups train in the driver's process and thread."""

import sqlite3
import traceback
from collections.abc import Callable, Sequence

import torch

from lorascope.engine.checkpoint import load_checkpoint
from lorascope.engine.loop import TrialGroup, train_group
from lorascope.engine.oom import is_out_of_memory
from lorascope.engine.trial import TrainingTrial
from lorascope.errors import Interrupted, LorascopeError
from lorascope.measure.clock import StepClock
from lorascope.measure.environment import mask_credentials
from lorascope.measure.memory import release_memory, retain_freed_memory
from lorascope.message import Message
from lorascope.run.executors import (
    Claim,
    Emit,
    GroupBegins,
    GroupEnded,
    GroupFailed,
    GroupOrder,
    GroupReady,
    Take,
)
from lorascope.run.executors.group_recorder import GroupRecorder
from lorascope.run.prepare import PreparedStudy
from lorascope.spec.schema import StudySpec


class InlineExecutor:
    """Trains groups on the prepared study's own model."""

    def __init__(self, study: PreparedStudy) -> None:
        self._study = study
        self._stopping = False

    @staticmethod
    def claim(spec: StudySpec) -> Claim:
        """Train as many groups as the study says, each after the one before."""
        return Claim(workers=spec.workers)

    def stop(self) -> None:
        """Stop between two operations of the model."""
        self._stopping = True

    def close(self) -> None:
        """Hold nothing: the model is the study's own."""

    def train(self, take: Take, emit: Emit) -> None:
        """Train one group after another; see ``Executor``."""
        while (order := take()) is not None:
            self._train_one(order, emit)
            emit(GroupEnded(order=order))

    def _train_one(self, order: GroupOrder, emit: Emit) -> None:
        failed = self._attempt(order, emit)
        if failed is None:
            return
        release_memory(self._study.device)  # behind the handler, whose traceback keeps the group's tensors
        if failed.out_of_memory:
            self._study.frozen.limit.tokens = None  # with fewer trials, larger micro-batches may fit
        emit(failed)

    def _attempt(self, order: GroupOrder, emit: Emit) -> GroupFailed | None:
        trials: list[TrainingTrial] = []
        try:
            emit(GroupBegins(order=order))
            self._make_trials(order, trials)
            emit(GroupReady(order=order, adapters=tuple(trial.adapter_record() for trial in trials)))
            self._train(order, trials, emit)
        except (LorascopeError, sqlite3.Error):  # the second is the driver's, from where it handles an event
            raise
        except Exception as error:  # noqa: BLE001 - the one place where any failure of a trial becomes its outcome
            return _failure(order, error, trials)
        finally:
            self._study.frozen.attach([])
        return None

    def _make_trials(self, order: GroupOrder, trials: list[TrainingTrial]) -> None:
        study, dtype = self._study, self._study.frozen.model.dtype
        for record in order.shard.trials:
            layers = study.layers_of(record.targets)
            made = TrainingTrial(record, study.spec, layers, dtype, study.frozen.modules_to_save)
            trials.append(made)  # at once, as those made are kept when one fails
        if order.shard.origin is not None:
            load_checkpoint(order.shard.origin, trials)

    def _train(self, order: GroupOrder, trials: Sequence[TrainingTrial], emit: Emit) -> None:
        study = self._study
        recorder = GroupRecorder(study, order, emit, self._check_stop)
        group = TrialGroup(
            frozen=study.frozen,
            trials=trials,
            splits=study.splits,
            spec=study.spec,
            total_steps=study.resolved.total_steps,
            recorder=recorder,
            probe=StepClock(study.device),
            check_stop=self._check_stop,
            rungs=order.rungs,
            base_nats=order.base_nats,
            places=order.places,
        )
        try:
            with retain_freed_memory(study.device):
                train_group(group)
        except Interrupted:
            recorder.save(trials)
            raise

    def _check_stop(self) -> None:
        if self._stopping:
            raise Interrupted("stopped as asked")


def note_smaller_microbatches(device: torch.device, note: Callable[[str], None], tokens: int) -> None:
    """Say that memory ran out, and what goes through the model at once from now on."""
    release_memory(device)
    note(f"memory ran out: from now on at most {tokens} tokens go through the model at once")


def _failure(order: GroupOrder, error: Exception, trials: Sequence[TrainingTrial]) -> GroupFailed:
    """Describe an error while it is handled."""
    out_of_memory = is_out_of_memory(error)
    return GroupFailed(
        order=order,
        out_of_memory=out_of_memory,
        message=(
            Message("trial.oom", error=str(error))
            if out_of_memory
            else Message("verbatim", text=mask_credentials(traceback.format_exc()))
        ),
        steps={trial.record.trial_id: trial.steps_done for trial in trials},
    )

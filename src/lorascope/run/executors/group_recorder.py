"""Report a group's training as events, and save its checkpoints and adapters."""

import time
from collections.abc import Callable, Sequence
from functools import partial

from lorascope.engine.checkpoint import save_checkpoint
from lorascope.engine.trial import TrainingTrial
from lorascope.records import EvalRecord, StepRecord, TrialOutcome
from lorascope.run.adapters import save_adapter
from lorascope.run.executors import Emit, GroupOrder, Noted, StepTaken, TrialEvaluated, TrialsEnded
from lorascope.run.prepare import PreparedStudy
from lorascope.run.retry import WriteRetry

_CHECKPOINT_SECONDS = 300.0
_CHECKPOINT_SHARE = 0.01
"""Largest share of the time that saving may take: where a save is slow, saves are rarer."""


class GroupRecorder:
    """The training loop's recorder; where the disk refuses a file, it tries again."""

    def __init__(self, study: PreparedStudy, order: GroupOrder, emit: Emit, check_stop: Callable[[], None]) -> None:
        self._study = study
        self._order = order
        self._emit = emit
        self._retry = WriteRetry(lambda text: emit(Noted(text=text)), check_stop)
        self._saved_at = time.monotonic()
        self._save_seconds = 0.0

    def steps(self, records: Sequence[StepRecord]) -> None:
        """Report one step of every trial."""
        self._emit(StepTaken(records=tuple(records)))

    def evaluation(self, record: EvalRecord) -> None:
        """Report a held-out evaluation."""
        self._emit(TrialEvaluated(record=record))

    def ended(self, trials: Sequence[TrainingTrial], outcomes: Sequence[TrialOutcome]) -> None:
        """Save the adapters of trials that finished, then report how all ended: a finished trial has its adapter.

        They are one event, so that a study that is killed finds all of them ended or none, and those that go on train
        with the same ones.
        """
        for trial, outcome in zip(trials, outcomes, strict=True):
            if outcome.state == "finished":
                self._retry.write(partial(save_adapter, self._order.folder, self._study, trial))
        self._emit(TrialsEnded(outcomes=tuple(outcomes)))

    def checkpoint_if_due(self, trials: Sequence[TrainingTrial]) -> None:
        """Save the state where the last save is five minutes ago, or longer where saving is slow."""
        interval = max(_CHECKPOINT_SECONDS, self._save_seconds / _CHECKPOINT_SHARE)
        if time.monotonic() - self._saved_at >= interval:
            self.save(trials)

    def save(self, trials: Sequence[TrainingTrial]) -> None:
        """Save the state now."""
        began = time.monotonic()
        self._retry.write(partial(save_checkpoint, self._order.shard.checkpoint, trials))
        self._saved_at = time.monotonic()
        self._save_seconds = self._saved_at - began

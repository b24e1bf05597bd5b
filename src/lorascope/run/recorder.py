"""Everything a run produces goes through here: into the store, to whoever watches, and into checkpoints."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from lorascope.engine.checkpoint import save_checkpoint
from lorascope.engine.trial import TrainingTrial
from lorascope.records import EvalRecord, StepRecord, TrialOutcome
from lorascope.run.progress import Progress
from lorascope.run.retry import Patience
from lorascope.store import StudyStore

_CHECKPOINT_SECONDS = 300.0
_CHECKPOINT_SHARE = 0.01
"""Most of the run's time that saving takes: where a save is slow, saves are rarer."""


class StudyRecorder:
    """Writes records and checkpoints of one study; where the disk refuses, it waits."""

    def __init__(
        self,
        store: StudyStore,
        progress: Progress,
        save_adapter: Callable[[TrainingTrial], None],
        check_stop: Callable[[], None],
    ) -> None:
        self._store = store
        self._progress = progress
        self._save_adapter = save_adapter
        self._patience = Patience(progress.note, check_stop)
        self._checkpoint: Path | None = None
        self._saved_at = time.monotonic()
        self._save_seconds = 0.0

    def begin_shard(self, checkpoint: Path) -> None:
        """Save the states of the trials that train from now on to this file."""
        self._checkpoint = checkpoint
        self._saved_at = time.monotonic()

    def steps(self, records: Sequence[StepRecord]) -> None:
        """Keep one step of every trial."""
        self._patience.write(partial(self._store.put_all, records))
        self._progress.step(records)

    def evaluation(self, record: EvalRecord) -> None:
        """Keep a held-out evaluation."""
        self._patience.write(partial(self._store.put, record))
        self._progress.evaluation(record)

    def outcome(self, outcome: TrialOutcome) -> None:
        """Keep how a trial stands."""
        self._patience.write(partial(self._store.put, outcome))
        self._progress.outcome(outcome)

    def ended(self, trials: Sequence[TrainingTrial], outcomes: Sequence[TrialOutcome]) -> None:
        """Save adapters of finished trials, then keep how all ended: who reads "finished" finds the adapter.

        A study that is killed finds all of them ended or none, so that those that go on train with the same ones.
        """
        for trial, outcome in zip(trials, outcomes, strict=True):
            if outcome.state == "finished":
                self._patience.write(partial(self._save_adapter, trial))
        self._patience.write(partial(self._store.put_all, outcomes))
        for outcome in outcomes:
            self._progress.outcome(outcome)

    def checkpoint_if_due(self, trials: Sequence[TrainingTrial]) -> None:
        """Save the state when the last save is five minutes ago, or longer where saving takes long."""
        interval = max(_CHECKPOINT_SECONDS, self._save_seconds / _CHECKPOINT_SHARE)
        if time.monotonic() - self._saved_at >= interval:
            self.save(trials)

    def save(self, trials: Sequence[TrainingTrial]) -> None:
        """Save the state now."""
        assert self._checkpoint is not None
        began = time.monotonic()
        self._patience.write(partial(save_checkpoint, self._checkpoint, trials))
        self._saved_at = time.monotonic()
        self._save_seconds = self._saved_at - began

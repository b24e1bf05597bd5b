"""Everything a run produces goes through here: into the store, to whoever watches, and into checkpoints."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lorascope.engine.checkpoint import save_checkpoint
from lorascope.engine.trial import TrainingTrial
from lorascope.records import EvalRecord, StepRecord, TrialOutcome
from lorascope.run.progress import Progress
from lorascope.store import StudyStore

_CHECKPOINT_SECONDS = 300.0


class StudyRecorder:
    """Writes records and checkpoints of one study."""

    def __init__(
        self, store: StudyStore, progress: Progress, checkpoint: Path, save_adapter: Callable[[TrainingTrial], None]
    ) -> None:
        self._store = store
        self._progress = progress
        self._checkpoint = checkpoint
        self._save_adapter = save_adapter
        self._saved_at = time.monotonic()

    def steps(self, records: Sequence[StepRecord]) -> None:
        """Keep one step of every trial."""
        self._store.append_steps(records)
        self._progress.step(records)

    def evaluation(self, record: EvalRecord) -> None:
        """Keep a held-out evaluation."""
        self._store.append_evaluations([record])
        self._progress.evaluation(record)

    def outcome(self, outcome: TrialOutcome) -> None:
        """Keep how a trial stands."""
        self._store.put_outcome(outcome)
        self._progress.outcome(outcome)

    def ended(self, trial: TrainingTrial, outcome: TrialOutcome) -> None:
        """Save a finished trial's adapter, then keep how it ended: who reads "finished" finds the adapter."""
        if outcome.state == "finished":
            self._save_adapter(trial)
        self.outcome(outcome)

    def checkpoint_if_due(self, trials: Sequence[TrainingTrial]) -> None:
        """Save the pack's state when the last save is five minutes ago."""
        if time.monotonic() - self._saved_at >= _CHECKPOINT_SECONDS:
            self.save(trials)

    def save(self, trials: Sequence[TrainingTrial]) -> None:
        """Save the pack's state now."""
        save_checkpoint(self._checkpoint, trials)
        self._saved_at = time.monotonic()

"""A consistent snapshot of a study's newest records."""

from dataclasses import dataclass

from lorascope.records import Environment, GpuSample, ProgressRecord, ResolvedStudy, SystemSample, TrialRecord
from lorascope.spec.schema import StudySpec
from lorascope.store.live import LiveStore
from lorascope.web.state import TrialStatus, trial_status


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """The newest records of a study; its series are read apart."""

    spec: StudySpec
    resolved: ResolvedStudy | None
    starts: int
    """How often the study was started or continued."""
    command: str
    """Command of the last start, which also continues the study; empty before the first."""
    other_records: int
    """Number of records that do not come from training steps."""
    trials: tuple[TrialStatus, ...]
    sample: SystemSample | None
    gpus: tuple[GpuSample, ...]
    """Newest reading of each GPU."""
    progress: ProgressRecord | None
    """How far the run is; None before its pace is known."""

    @property
    def summary_key(self) -> object:
        """Return what the summary depends on, single training steps left out."""
        trials = tuple((trial.outcome, trial.evaluation and trial.evaluation.step) for trial in self.trials)
        return self.spec, self.starts, self.other_records, trials


def read_snapshot(store: LiveStore, spec: StudySpec) -> Snapshot:
    """Read a snapshot; call it in a ``read_transaction``."""
    outcomes = store.outcomes()
    trials = tuple(
        trial_status(
            trial,
            outcomes.get(trial.trial_id),
            store.last_step(trial.trial_id),
            store.last_evaluation(trial.trial_id),
        )
        for trial in store.read(TrialRecord)
    )
    environments = store.read(Environment)
    return Snapshot(
        spec=spec,
        resolved=store.read_one(ResolvedStudy),
        starts=len(environments),
        command=environments[-1].command if environments else "",
        other_records=store.count_other_records(),
        trials=trials,
        sample=store.last_sample(),
        gpus=tuple(store.last_gpu_samples()),
        progress=store.read_one(ProgressRecord),
    )

"""Everything a study folder holds, read once."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lorascope.analysis.cost.solo_runs import SoloCost, costs_by_rank
from lorascope.records import (
    AdapterRecord,
    Environment,
    EvalRecord,
    ForgettingRecord,
    GpuSample,
    MachineRates,
    PeftCheck,
    PredictionRecord,
    ResolvedStudy,
    Setting,
    ShownRow,
    SoloRun,
    SpectrumRecord,
    SystemSample,
    TrialOutcome,
    TrialRecord,
    TruncationRecord,
)
from lorascope.search.trials import planned_settings
from lorascope.spec.load import load_spec
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore, verify_store
from lorascope.store.columns import StepColumns
from lorascope.store.folder import StudyFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyData:
    """The question and all records, finished or not."""

    spec: StudySpec
    resolved: ResolvedStudy | None
    environments: tuple[Environment, ...]
    trials: tuple[TrialRecord, ...]
    outcomes: dict[str, TrialOutcome]
    adapters: dict[int, AdapterRecord]
    """By rank."""
    costs: dict[int, SoloCost]
    """By rank."""
    steps: dict[str, StepColumns]
    """By trial id; a trial that never began has an empty tuple."""
    evaluations: dict[str, tuple[EvalRecord, ...]]
    """By trial id, the same."""
    spectra: tuple[SpectrumRecord, ...]
    """Of all examined trials, layers in the model's order."""
    truncations: tuple[TruncationRecord, ...]
    """By trial id and ascending rank."""
    forgetting: dict[str, ForgettingRecord]
    """By trial id; the base model's under the empty name."""
    peft_checks: tuple[PeftCheck, ...]
    """Of the trials whose adapters stand for their ranks; empty where PEFT is not installed."""
    predictions: tuple[PredictionRecord, ...]
    """Made before anything was measured; empty in a study without solo measurements."""
    solo_runs: tuple[SoloRun, ...]
    """In the order they were taken; ``costs`` combines them."""
    machine_rates: MachineRates | None
    shown_rows: tuple[ShownRow, ...]
    """The first training rows."""
    samples: tuple[SystemSample, ...]
    """The process over the whole run."""
    gpu_samples: tuple[GpuSample, ...]
    """Its GPUs: over the whole run, and, more often, in solo runs."""

    @property
    def ranks(self) -> tuple[int, ...]:
        """The study's ranks in ascending order."""
        return tuple(sorted(self.spec.ranks))

    @property
    def settings(self) -> dict[int, tuple[Setting, ...]]:
        """Alphas with rates of each rank, ascending: those planned, and those added beyond the edge of the grid."""
        settings = {rank: set(planned_settings(self.spec, rank)) for rank in self.ranks}
        for trial in self.trials:
            settings[trial.rank].add(trial.setting)
        return {rank: tuple(sorted(found)) for rank, found in settings.items()}

    def rates(self, rank: int, lora_alpha: float) -> tuple[float, ...]:
        """Return the learning rates of a rank and alpha, ascending."""
        return tuple(rate for alpha, rate in self.settings[rank] if alpha == lora_alpha)

    @property
    def steps_per_epoch(self) -> int | None:
        """Optimizer steps of one pass over the training rows; None before the rows were counted."""
        if self.resolved is None:
            return None
        rows_per_step = self.spec.per_device_train_batch_size * self.spec.gradient_accumulation_steps
        return -(-self.resolved.train_examples // rows_per_step)


def load_study(folder: Path) -> StudyData:
    """Read ``study.yaml`` and ``study.db``. Raises InputError when the folder is not a study's."""
    study = StudyFolder(folder)
    with StudyStore.open(study.store) as store, ThreadPoolExecutor(1) as beside:
        verified = beside.submit(verify_store, study.store)  # SQLite reads it without Python's lock
        try:
            return _read(store, load_spec(study.spec, {}))
        finally:
            verified.result()  # damage explains whatever reading met


def _read(store: StudyStore, spec: StudySpec) -> StudyData:
    trials = tuple(store.read(TrialRecord))
    runs = tuple(store.read(SoloRun))
    return StudyData(
        spec=spec,
        resolved=store.read_one(ResolvedStudy),
        environments=tuple(store.read(Environment)),
        trials=trials,
        outcomes=store.outcomes(),
        adapters={record.rank: record for record in store.read(AdapterRecord)},
        costs=costs_by_rank(runs),
        steps={trial.trial_id: store.step_columns(trial.trial_id) for trial in trials},
        evaluations={trial.trial_id: tuple(store.read(EvalRecord, trial_id=trial.trial_id)) for trial in trials},
        spectra=tuple(store.read(SpectrumRecord)),
        truncations=tuple(store.read(TruncationRecord)),
        forgetting={record.trial_id: record for record in store.read(ForgettingRecord)},
        peft_checks=tuple(store.read(PeftCheck)),
        predictions=tuple(store.read(PredictionRecord)),
        solo_runs=runs,
        machine_rates=store.read_one(MachineRates),
        shown_rows=tuple(store.read(ShownRow)),
        samples=tuple(store.read(SystemSample)),
        gpu_samples=tuple(store.read(GpuSample)),
    )

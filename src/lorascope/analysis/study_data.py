"""Everything a study folder holds, read once."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from lorascope.analysis.cost.solo_runs import SoloCost, costs_by_rank
from lorascope.records import (
    ActivityRecord,
    AdapterRecord,
    Environment,
    EvalRecord,
    ForgettingRecord,
    FurtherEvalRecord,
    GpuSample,
    HarnessTask,
    LookRecord,
    MachineRates,
    PeftCheck,
    PredictionRecord,
    ResolvedStudy,
    SampleAnswer,
    SamplePrompt,
    ScoreRecord,
    Setting,
    ShownRow,
    SoloRun,
    SpectrumRecord,
    SystemSample,
    TargetSet,
    TrialOutcome,
    TrialRecord,
    TruncationRecord,
)
from lorascope.search.sequential import first_seeds, goes_on
from lorascope.search.target_sets import studies_by_set
from lorascope.search.trials import planned_settings
from lorascope.spec.load import load_spec
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore, verify_store
from lorascope.store.columns import StepColumns
from lorascope.store.folder import StudyFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyData:
    """The question and all records, finished or not, of one set of target modules.

    The steps and evaluations are those of all sets, as trials of all of them train together.
    """

    targets: str
    """Name of the set of target modules; empty where the study has one."""
    spec: StudySpec
    """The study of this set alone."""
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
    further: dict[str, tuple[FurtherEvalRecord, ...]]
    """Evaluations on further held-out rows in their order, by trial id; the base model's under the empty name."""
    looks: tuple[LookRecord, ...]
    """Looks of a sequential study that compared ranks, in order."""
    goes_on: bool
    """True for a sequential study that has another look to take."""
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
    prompts: tuple[SamplePrompt, ...]
    """Held-out prompts that base and adapters answer."""
    answers: tuple[SampleAnswer, ...]
    """Of all trials that answered, of all sets."""
    scores: tuple[ScoreRecord, ...]
    """Of their greedy answers, and of documents of benchmarks, of all sets."""
    benchmarks: tuple[HarnessTask, ...]
    samples: tuple[SystemSample, ...]
    """The process over the whole run."""
    gpu_samples: tuple[GpuSample, ...]
    """Its GPUs: over the whole run, and, more often, in solo runs."""
    activities: tuple[ActivityRecord, ...]
    """Times of all kinds of work, over all starts."""
    others: tuple["StudyData", ...] = ()
    """The records of the study's other sets of target modules, in the order of the study."""

    def of_set(self, targets: str) -> "StudyData":
        """Return the records of another set of target modules."""
        return next(one for one in (self, *self.others) if one.targets == targets)

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
    def seeds(self) -> tuple[int, ...]:
        """The study's seeds, those that its looks asked for included, without those that a time budget left out."""
        planned = (*first_seeds(self.spec), *(look.next_value for look in self.looks if look.next == "seed"))
        return tuple(seed for seed in planned if not self._left_out(seed))

    def _left_out(self, seed: int) -> bool:
        """Return True where every trial of a seed was stopped before its first step."""
        outcomes = [self.outcomes.get(trial.trial_id) for trial in self.trials if trial.seed == seed]
        stopped = (one is not None and (one.state, one.steps) == ("stopped", 0) for one in outcomes)
        return bool(outcomes) and all(stopped)

    @property
    def steps_per_epoch(self) -> int | None:
        """Optimizer steps of one pass over the training rows; None before the rows were counted."""
        return -(-self.resolved.train_examples // self.rows_per_step) if self.resolved else None

    @property
    def rows_per_step(self) -> int:
        """Training rows of an optimizer step."""
        return self.spec.per_device_train_batch_size * self.spec.gradient_accumulation_steps

    @property
    def epochs(self) -> float | None:
        """Passes over the training rows that a whole trial makes; None before the rows were counted."""
        steps = self.steps_per_epoch
        return self.resolved.total_steps / steps if self.resolved and steps else None


def load_study(folder: Path) -> StudyData:
    """Read ``study.yaml`` and ``study.db``. Raises InputError when the folder is not a study's."""
    study = StudyFolder(folder)
    with StudyStore.open(study.store) as store, ThreadPoolExecutor(1) as beside:
        verified = beside.submit(verify_store, study.store)  # SQLite reads it without Python's lock
        try:
            return read_study(store, load_spec(study.spec, {}))
        finally:
            verified.result()  # damage explains whatever reading met


def read_study(store: StudyStore, spec: StudySpec) -> StudyData:
    """Read all records of an open store."""
    layers = {one.name: one.layers for one in store.read(TargetSet)}
    whole = _read_all(store, spec)
    first, *others = (_of_set(store, whole, name, own, layers) for name, own in studies_by_set(spec).items())
    return replace(first, others=tuple(others))


def _of_set(
    store: StudyStore, whole: StudyData, targets: str, spec: StudySpec, layers: Mapping[str, tuple[str, ...]]
) -> StudyData:
    """Select the records of one set of target modules; the prediction of a joint step is of all sets together."""
    trials = tuple(trial for trial in whole.trials if trial.targets == targets)
    own = {trial.trial_id for trial in trials}
    runs = tuple(run for run in whole.solo_runs if run.targets == targets)
    resolved = whole.resolved
    if resolved is not None and targets in layers:
        resolved = replace(resolved, target_modules=layers[targets])
    return replace(
        whole,
        targets=targets,
        spec=spec,
        resolved=resolved,
        trials=trials,
        adapters={one.rank: one for one in store.read(AdapterRecord) if one.targets == targets},
        costs=costs_by_rank(runs),
        solo_runs=runs,
        spectra=tuple(record for record in whole.spectra if record.trial_id in own),
        truncations=tuple(record for record in whole.truncations if record.trial_id in own),
        peft_checks=tuple(check for check in whole.peft_checks if check.trial_id in own),
        predictions=tuple(one for one in whole.predictions if one.what != "alone" or one.targets == targets),
        gpu_samples=tuple(one for one in whole.gpu_samples if one.rank is None or one.targets == targets),
    )


def _read_all(store: StudyStore, spec: StudySpec) -> StudyData:
    trials, looks = tuple(store.read(TrialRecord)), store.read(LookRecord)
    return StudyData(
        targets="",
        spec=spec,
        resolved=store.read_one(ResolvedStudy),
        environments=tuple(store.read(Environment)),
        trials=trials,
        outcomes=store.outcomes(),
        adapters={},
        costs={},
        steps={trial.trial_id: store.step_columns(trial.trial_id) for trial in trials},
        evaluations={trial.trial_id: tuple(store.read(EvalRecord, trial_id=trial.trial_id)) for trial in trials},
        further=by_trial(store.read(FurtherEvalRecord)),
        looks=tuple(look for look in looks if len(look.ranks) > 1),
        goes_on=spec.until_decided and goes_on(looks),
        spectra=tuple(store.read(SpectrumRecord)),
        truncations=tuple(store.read(TruncationRecord)),
        forgetting={record.trial_id: record for record in store.read(ForgettingRecord)},
        peft_checks=tuple(store.read(PeftCheck)),
        predictions=tuple(store.read(PredictionRecord)),
        solo_runs=tuple(store.read(SoloRun)),
        machine_rates=store.read_one(MachineRates),
        shown_rows=tuple(store.read(ShownRow)),
        prompts=tuple(store.read(SamplePrompt)),
        answers=tuple(store.read(SampleAnswer)),
        scores=tuple(store.read(ScoreRecord)),
        benchmarks=tuple(one for one in store.read(HarnessTask) if one.given in spec.lm_eval),
        samples=tuple(store.read(SystemSample)),
        gpu_samples=tuple(store.read(GpuSample)),
        activities=tuple(store.read(ActivityRecord)),
    )


def by_trial(records: Iterable[FurtherEvalRecord]) -> dict[str, tuple[FurtherEvalRecord, ...]]:
    """Sort evaluations on further rows by their trial."""
    found: dict[str, tuple[FurtherEvalRecord, ...]] = {}
    for record in records:
        found[record.trial_id] = (*found.get(record.trial_id, ()), record)
    return found

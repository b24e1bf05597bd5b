"""What a study that is about to start will cost, and what its end teaches about this machine."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from lorascope.analysis.cost.predicted import group_size
from lorascope.analysis.cost.solo_runs import costs_by_arm, pace_spread, runs_by_arm
from lorascope.analysis.estimates.joint_steps import JointSteps, joint_steps
from lorascope.analysis.estimates.noise import study_noise
from lorascope.analysis.study_data import read_study
from lorascope.costmodel.calibration import Calibration, find_calibration, keep_calibration
from lorascope.costmodel.cost_types import Hardware, TrainingConfig
from lorascope.costmodel.cpu_bench import CpuBenchmark
from lorascope.costmodel.devices import Roofline, recognise
from lorascope.costmodel.machine import device_key
from lorascope.costmodel.model import predict
from lorascope.costmodel.noise import keep_noise
from lorascope.costmodel.shapes import model_shape
from lorascope.costmodel.training_config import full_finetuning_config, lorascope_config
from lorascope.costmodel.workload import sample_steps
from lorascope.engine.oom import is_out_of_memory
from lorascope.errors import InputError
from lorascope.measure.memory import MemoryMeter, release_memory
from lorascope.modeling.quantisation import base_bytes
from lorascope.modeling.target_selection import largest_share, own_ranks
from lorascope.records import PredictedThing, PredictionRecord, ResolvedStudy, SoloRun, TrialRecord
from lorascope.run.context import RunContext
from lorascope.run.prepare import PreparedStudy
from lorascope.run.solo_run import choose_batches
from lorascope.search.rounds import next_trials
from lorascope.search.sequential import first_seeds
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore

_UNSTEADY = 0.3
"""A study in whose solo runs a rank's pace differed by more does not replace a calibration."""


def predict_once(run: RunContext) -> None:
    """Store what the ranks and the first trial group will cost, where that is asked for and not stored yet.

    Where it cannot be predicted, the run goes on without.
    """
    study, store = run.study, run.store
    if study.spec.cost == "off" or store.read(PredictionRecord):
        return
    run.tracker.phase("predicting what each rank costs")
    try:
        store.put_all(predict_study(study, next_trials(study.spec, [], {})))
    except (InputError, KeyError, MemoryError, OSError, RuntimeError) as error:
        if not (isinstance(error, InputError | KeyError) or is_out_of_memory(error)):
            raise
        run.tracker.note(f"what the ranks cost is not predicted ({error})")
    run.progress.guess(store.read(PredictionRecord), [])
    run.progress.lap("predictions")


def predict_study(study: PreparedStudy, group: Sequence[TrialRecord]) -> list[PredictionRecord]:
    """Predict every rank alone, a trial group of one set of targets and full fine-tuning; nothing on an unknown GPU.

    Times are those of the typical batch, memory that of the heaviest one, as they are measured.
    """
    dtype = str(study.frozen.model.dtype).removeprefix("torch.")
    hardware = _hardware(study.device, dtype)
    if hardware is None:
        return []
    config = lorascope_config(
        dtype,
        kernels=study.frozen.accelerated,
        on_cpu=study.device.type == "cpu",
        from_base=study.spec.starts_from_base,
    )
    if not study.frozen.chunked_head:
        config = replace(config, chunk=None)
    frozen, share = study.frozen, largest_share(study.frozen.layers)
    shapes = {
        targets: model_shape(frozen.model, names, own_ranks(names, study.spec), tuple(frozen.modules_to_save), share)
        for targets, names in study.target_sets.items()
    }
    shape = next(iter(shapes.values()))
    known = find_calibration(device_key(study.device), dtype, shape.parameters)
    rest = known.rest_bytes if known else _rest_bytes(study)
    batches = choose_batches(study, study.spec.seeds[0])

    def record(
        what: PredictedThing, ranks: Sequence[int], config: TrainingConfig, adapters: int, targets: str = ""
    ) -> PredictionRecord:
        shape = shapes.get(targets, next(iter(shapes.values())))
        steps = sample_steps(
            study.spec,
            study.splits.train,
            (batches.typical, batches.heaviest),
            adapters=adapters,
            padded=not study.frozen.packing,
            kernels=study.frozen.accelerated,
        )
        factor = 1.0 if known is None else known.joint_factor if what == "joint" else known.factor
        typical = predict(shape, config, steps[:1], ranks, hardware)
        memory = predict(shape, config, steps, ranks, hardware, rest_bytes=rest).memory
        return PredictionRecord(
            what=what,
            targets=targets,
            rank=ranks[0] if what == "alone" else 0,
            device=device_key(study.device),
            tokens=adapters * float(steps[0].tokens),
            step_seconds=typical.step_seconds * factor,
            factor=factor,
            step_flops=typical.step_flops,
            step_bytes=typical.step_bytes,
            **asdict(memory),
        )

    def everything() -> list[PredictionRecord]:
        ranks = sorted(study.spec.ranks)
        alone = [record("alone", [rank], config, 1, targets) for targets in shapes for rank in ranks]
        joint = [record("joint", [trial.rank for trial in group], config, len(group))] if len(shapes) == 1 else []
        return [*alone, *joint, record("full", [], full_finetuning_config(config), 1)]

    found = everything()
    return everything() if hardware.refine() else found


def update_calibration(path: Path) -> None:
    """Keep what a finished study showed about its device; nothing where it was not measured or not predicted."""
    with StudyStore.open(path) as store:
        resolved, runs = store.read_one(ResolvedStudy), store.read(SoloRun)
        costs = costs_by_arm(runs)
        predictions = store.read(PredictionRecord)
        steps = joint_steps(columns.where(~columns.warmup) for columns in map(store.step_columns, store.outcomes()))
    records = {(record.targets, record.rank): record for record in predictions if record.what == "alone"}
    both = [(record, costs[arm]) for arm, record in records.items() if arm in costs]
    ratios = [cost.seconds_per_token / _predicted(record) for record, cost in both]
    if resolved is None or not ratios:
        return
    apart = max(map(pace_spread, runs_by_arm(runs).values()), default=0.0)
    if apart > _UNSTEADY and find_calibration(both[0][0].device, resolved.dtype, resolved.base_parameters) is not None:
        return
    factor = statistics.median(ratios)
    unexplained = statistics.median(cost.peak_bytes - record.memory_bytes for record, cost in both)
    some = both[0][0]
    keep_calibration(
        Calibration(
            device=some.device,
            dtype=resolved.dtype,
            parameters=resolved.base_parameters,
            factor=factor,
            joint_factor=_joint_ratio(predictions, steps) or factor,
            rest_bytes=max(0, round(some.rest_bytes + unexplained)),
        )
    )


def update_noise(path: Path, spec: StudySpec) -> None:
    """Keep the noise that a finished study of several seeds showed."""
    if len(first_seeds(spec)) == 1:
        return
    with StudyStore.open(path) as store:
        found = study_noise(read_study(store, spec))
    if found is not None:
        keep_noise(spec, found)


def _joint_ratio(predictions: Sequence[PredictionRecord], steps: JointSteps) -> float | None:
    """Divide the measured by the predicted time of the whole group's step; None where it never trained together."""
    joint = next((record for record in predictions if record.what == "joint"), None)
    if joint is None:
        return None
    whole = steps.trials == group_size(joint, predictions)
    if not whole.any():
        return None
    return float(np.median(steps.seconds[whole]) / steps.tokens[whole].mean() / _predicted(joint))


def _predicted(record: PredictionRecord) -> float:
    """Return the seconds a token before any correction."""
    return record.step_seconds / record.factor / record.tokens


def _hardware(device: torch.device, dtype: str) -> Hardware | None:
    if device.type == "cpu":
        return CpuBenchmark()
    known = recognise(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    return Roofline(known) if known is not None and dtype in known.rates else None


def _rest_bytes(study: PreparedStudy) -> int:
    """Return what the process holds beside the base; a GPU's readings are Torch's own allocations, without a rest."""
    release_memory(study.device)
    return max(0, MemoryMeter(study.device).read() - base_bytes(study.frozen.model))

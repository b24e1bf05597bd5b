"""What a study that is about to start will cost, and what its end teaches about this machine."""

import statistics
from collections.abc import Sequence
from pathlib import Path

import torch

from lorascope.engine.loop import WARMUP_STEPS
from lorascope.measure.calibration import Calibration, find_calibration, keep_calibration
from lorascope.measure.cost_model import predict
from lorascope.measure.cost_parts import Machine, Recipe
from lorascope.measure.devices import Roofline, recognise
from lorascope.measure.memory import MemoryMeter, release_memory
from lorascope.measure.shapes import model_shape
from lorascope.measure.this_cpu import ThisCpu
from lorascope.measure.workload import steps_of
from lorascope.records import CostRecord, PredictedThing, PredictionRecord, TrialRecord
from lorascope.run.machine import device_key, lorascope_recipe
from lorascope.run.plan import full_recipe
from lorascope.run.prepare import PreparedStudy
from lorascope.store import StudyStore

_STEPS = 3
"""Steps after the warm-up that are predicted: those that solo measurements begin with."""


def predict_study(study: PreparedStudy, pack: Sequence[TrialRecord]) -> list[PredictionRecord]:
    """Predict the first steps of every rank alone, of a pack and of full fine-tuning; nothing on an unknown GPU."""
    machine = _machine(study.device)
    if machine is None:
        return []
    dtype = str(study.frozen.model.dtype).removeprefix("torch.")
    recipe = lorascope_recipe(dtype, kernels=study.frozen.kernels is not None)
    shape = model_shape(study.frozen.model, study.frozen.layers)
    known = find_calibration(device_key(study.device), dtype, shape.parameters)
    factor = known.factor if known else 1.0
    rest = known.rest_bytes if known else _rest_bytes(study)

    def record(what: PredictedThing, ranks: Sequence[int], recipe: Recipe, adapters: int) -> PredictionRecord:
        steps = steps_of(
            study.spec,
            study.splits.train,
            range(WARMUP_STEPS, min(study.facts.total_steps, WARMUP_STEPS + _STEPS)) or range(1),
            adapters=adapters,
            padded=not study.frozen.packing,
            kernels=study.frozen.kernels is not None,
        )
        found = predict(shape, recipe, steps, ranks, machine, rest_bytes=rest)
        return PredictionRecord(
            what=what,
            rank=ranks[0] if what == "alone" else 0,
            device=device_key(study.device),
            tokens=adapters * statistics.fmean(step.tokens for step in steps),
            step_seconds=found.step_seconds * factor,
            factor=factor,
            step_flops=found.step_flops,
            step_bytes=found.step_bytes,
            base_bytes=found.memory.base,
            adapter_bytes=found.memory.adapter,
            gradient_bytes=found.memory.gradient,
            optimizer_bytes=found.memory.optimizer,
            activation_bytes=found.memory.activation,
            rest_bytes=found.memory.rest,
        )

    alone = [record("alone", [rank], recipe, 1) for rank in sorted(study.spec.ranks)]
    joint = record("joint", [trial.rank for trial in pack], recipe, len(pack))
    return [*alone, joint, record("full", [], full_recipe(recipe), 1)]


def calibrate(path: Path) -> None:
    """Keep what a finished study showed about its device; nothing where it was not measured or not predicted."""
    with StudyStore.open(path) as store:
        facts, costs = store.facts(), {cost.rank: cost for cost in store.costs()}
        records = {record.rank: record for record in store.predictions() if record.what == "alone"}
    both = [(record, costs[rank]) for rank, record in records.items() if rank in costs]
    ratios = [_seconds_per_token(cost) / _predicted(record) for record, cost in both if _seconds_per_token(cost)]
    if facts is None or not ratios:
        return
    unexplained = statistics.median(cost.peak_memory_bytes - record.memory_bytes for record, cost in both)
    some = both[0][0]
    keep_calibration(
        Calibration(
            device=some.device,
            dtype=facts.dtype,
            parameters=facts.base_parameters,
            factor=statistics.median(ratios),
            rest_bytes=max(0, round(some.rest_bytes + unexplained)),
        )
    )


def _seconds_per_token(cost: CostRecord) -> float:
    """Divide the time after the warm-up by its tokens; 0 where nothing was measured."""
    seconds, tokens = sum(cost.step_seconds[cost.warmup_steps :]), sum(cost.step_tokens[cost.warmup_steps :])
    return seconds / tokens if tokens else 0.0


def _predicted(record: PredictionRecord) -> float:
    """Return the seconds a token before any correction."""
    return record.step_seconds / record.factor / record.tokens


def _machine(device: torch.device) -> Machine | None:
    if device.type == "cpu":
        return ThisCpu()
    known = recognise(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    return Roofline(known) if known is not None else None


def _rest_bytes(study: PreparedStudy) -> int:
    """Return what the process holds beside the base; a GPU's readings are Torch's own allocations, without a rest."""
    release_memory(study.device)
    base = sum(parameter.numel() * parameter.element_size() for parameter in study.frozen.model.parameters())
    return max(0, MemoryMeter(study.device).read() - base)

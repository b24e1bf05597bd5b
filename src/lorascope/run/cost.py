"""What a rank costs alone: a few steps of it and nothing else."""

from collections.abc import Callable

from lorascope.engine.loop import WARMUP_STEPS
from lorascope.engine.step import train_step
from lorascope.engine.trial import TrainingTrial
from lorascope.measure.clock import StepClock
from lorascope.measure.memory import MemoryMeter, release_memory
from lorascope.modeling.adapter import attach
from lorascope.records import CostRecord, TrialRecord
from lorascope.run.prepare import PreparedStudy


def measure_cost(study: PreparedStudy, trial: TrialRecord, *, check_stop: Callable[[], None]) -> CostRecord:
    """Train one rank alone for ``cost_steps`` steps after a warm-up, on the study's first rows, and throw it away.

    Only time and memory are kept; the weights, and so the study's losses, are not touched by it.
    """
    release_memory(study.device)
    clock = StepClock(study.device)
    n_steps = WARMUP_STEPS + study.spec.cost_steps
    with MemoryMeter(study.device) as meter:
        alone = TrainingTrial(trial, study.spec, study.frozen.layers, study.frozen.model.dtype)
        attach(study.frozen.layers, [alone.adapter])
        for step in range(n_steps):
            train_step(
                study.frozen,
                [alone],
                study.splits.train,
                study.spec,
                total_steps=n_steps,
                probe=clock,
                warmup=step < WARMUP_STEPS,
                check_stop=check_stop,
            )
            if alone.diverged:
                break
    attach(study.frozen.layers, [])
    return CostRecord(
        rank=trial.rank,
        step_seconds=tuple(clock.step_seconds),
        warmup_steps=min(WARMUP_STEPS, len(clock.step_seconds)),
        step_tokens=tuple(clock.step_tokens),
        peak_memory_bytes=meter.peak_bytes,
        base_memory_bytes=meter.base_bytes,
        memory_samples_bytes=tuple(meter.samples_bytes),
    )

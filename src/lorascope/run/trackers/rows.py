"""Turn a study's records into the runs and rows of a tracker, the same while it runs and afterwards."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from lorascope.analysis.cost.solo_runs import costs_by_rank
from lorascope.measure.environment import mask_credentials
from lorascope.records import (
    SETTLED,
    Environment,
    EvalRecord,
    GpuSample,
    ResolvedStudy,
    SoloRun,
    StepRecord,
    SystemSample,
    TrialOutcome,
    TrialRecord,
)
from lorascope.run.trackers.experiment import Row, RunState, TrackedRun
from lorascope.spec.schema import StudySpec
from lorascope.store.live import LiveStore

STEP_AXIS = "train/global_step"
TIME_AXIS = "system/seconds"
_STUDY_FACTS = (
    "device", "dtype", "packing", "kernels", "train_examples", "eval_examples", "train_tokens", "total_steps",
    "base_parameters", "data_hash", "model_hash",
)  # fmt: skip
_TRIAL_FACTS = ("rank", "lora_alpha", "scale", "learning_rate", "seed", "targets")


def tracked_runs(
    folder: Path, spec: StudySpec, resolved: ResolvedStudy, environment: Environment, trials: Sequence[TrialRecord]
) -> dict[str, TrackedRun]:
    """Return the run of the whole study, named by an empty text, and those of the trials by their ids.

    A study has the same ids wherever its folder is; one that begins anew with other steps has others.

    Args:
        folder: of the study.
        spec: the study.
        resolved: what it came to.
        environment: the first that it ran in.
        trials: those that are planned so far.
    """
    facts = (environment.started, environment.command, resolved.data_hash, resolved.model_hash, resolved.total_steps)
    study_id = _digest(*map(str, facts))
    group = f"{folder.resolve().name}-{study_id[:6]}"
    shared = spec.model_dump(mode="json", exclude_none=True, exclude={"report_to"})
    shared |= {name: getattr(resolved, name) for name in _STUDY_FACTS}
    shared |= {"device_name": environment.device_name, "lorascope_version": environment.lorascope_version}

    def run(name: str, run_id: str, axis: str, own: Mapping[str, object]) -> TrackedRun:
        config = {key: _masked(value) for key, value in {**shared, **own}.items()}
        return TrackedRun(run_id=run_id, name=name, study=group, study_run_id=study_id, axis=axis, config=config)

    found = {"": run("study", study_id, TIME_AXIS, {})}
    for trial in trials:
        own = {name: getattr(trial, name) for name in _TRIAL_FACTS}
        found[trial.trial_id] = run(trial.trial_id, _digest(study_id, trial.trial_id), STEP_AXIS, own)
    return found


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _masked(value: object) -> object:
    if isinstance(value, list):
        return [_masked(one) for one in value]
    return mask_credentials(value) if isinstance(value, str) else value


def state_of(outcome: TrialOutcome | None) -> RunState | None:
    """Return how a trial ended; None where it goes on, now or in the next run."""
    if outcome is None or outcome.state not in SETTLED:
        return None
    return "failed" if outcome.state == "diverged" else "finished"


def read_rows(store: LiveStore, trial: TrialRecord | None, after: int) -> list[Row]:
    """Read the rows behind a step of a trial, or of the whole study (None)."""
    if trial is None:
        samples = store.samples_from(after + 1)
        return sample_rows(samples, store.gpu_samples_from(samples[0].seconds) if samples else [], after)
    outcome, resolved = store.outcomes().get(trial.trial_id), store.read_one(ResolvedStudy)
    ended = state_of(outcome) is not None
    costs = solo_values(store, trial, resolved) if ended and resolved is not None else {}
    steps, evaluations = store.steps_after(trial.trial_id, after), store.evaluations_after(trial.trial_id, after)
    return trial_rows(steps, evaluations, costs if ended else None)


def trial_rows(
    steps: Sequence[StepRecord], evaluations: Sequence[EvalRecord], costs: Mapping[str, float] | None
) -> list[Row]:
    """Return the rows of some of a trial's steps. Rows are whole: the newest waits while it may be evaluated yet.

    Args:
        steps: the trial's steps behind a step.
        evaluations: those behind the same step.
        costs: of a rank alone, for the last row; None while the trial goes on.
    """
    found: dict[int, dict[str, float]] = {}
    for step in steps:
        found[step.step] = {
            "train/loss": step.nats / step.target_tokens if step.target_tokens else math.nan,
            "train/learning_rate": step.learning_rate,
            "train/grad_norm": step.grad_norm,
            "train/tokens_per_second": step.tokens / step.seconds if step.seconds and not step.warmup else math.nan,
        }
    for evaluation in evaluations:
        loss = math.nan if evaluation.loss is None else evaluation.loss
        values = found.setdefault(evaluation.step, {})
        values["eval/loss"] = loss
        if evaluation.example_correct_tokens is not None:
            values["eval/token_accuracy"] = sum(evaluation.example_correct_tokens) / sum(
                evaluation.example_target_tokens
            )
    numbers = sorted(found)
    if costs is None:
        numbers = numbers[:-1]
    elif numbers:
        found[numbers[-1]] |= costs
    return [_row(number, found[number] | {STEP_AXIS: number}) for number in numbers]


def solo_values(store: LiveStore, trial: TrialRecord, resolved: ResolvedStudy) -> dict[str, float]:
    """Return the time and memory of a trial's rank trained by itself, as far as they were measured."""
    runs = [run for run in store.read(SoloRun) if run.targets == trial.targets]
    cost = costs_by_rank(runs).get(trial.rank)
    if cost is None:
        return {}
    on_gpu = resolved.device.startswith("cuda")
    values = {
        "alone/step_seconds": cost.median_seconds,
        "alone/runtime_seconds": cost.median_seconds * resolved.total_steps,
        "alone/tokens_per_second": cost.tokens_per_second,
        "alone/gpu_memory_allocated_gb" if on_gpu else "alone/process_memory_gb": cost.peak_bytes / 1e9,
    }
    samples = store.read(GpuSample, rank=trial.rank, targets=trial.targets) if on_gpu else []
    return values | {f"alone/{name}": value for name, value in _means(samples).items()}


def sample_rows(samples: Sequence[SystemSample], gpus: Sequence[GpuSample], after: int) -> list[Row]:
    """Return the rows of the process over time, numbered behind ``after``."""
    by_time: dict[float, list[GpuSample]] = {}
    for gpu in gpus:
        by_time.setdefault(gpu.seconds, []).append(gpu)
    rows = []
    for number, sample in enumerate(samples, after + 1):
        allocated = sample.device_allocated_bytes
        values = {
            TIME_AXIS: sample.seconds,
            "system/process_memory_gb": sample.rss_bytes / 1e9,
            "system/cpu_percent": sample.cpu_percent,
            "system/gpu_memory_allocated_gb": math.nan if allocated is None else allocated / 1e9,
        }
        means = _means(by_time.get(sample.seconds, []))
        rows.append(_row(number, values | {f"system/{name}": value for name, value in means.items()}))
    return rows


def _means(samples: Sequence[GpuSample]) -> dict[str, float]:
    """Return the mean of each counter of GPUs; those that say nothing are left out."""
    names = {
        "memory_used_bytes": ("gpu_memory_used_gb", 1e-9),
        "utilization_percent": ("gpu_utilization_percent", 1.0),
        "memory_utilization_percent": ("gpu_memory_access_percent", 1.0),
        "power_watts": ("gpu_power_watts", 1.0),
        "temperature_celsius": ("gpu_temperature_celsius", 1.0),
    }
    found = {}
    for field, (name, factor) in names.items():
        values = [value for sample in samples if (value := getattr(sample, field)) is not None]
        if values:
            found[name] = fmean(values) * factor
    return found


def _row(step: int, values: Mapping[str, float]) -> Row:
    return Row(step=step, values={name: float(value) for name, value in values.items() if math.isfinite(value)})

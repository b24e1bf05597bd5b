"""Studies of any length as a run leaves them on disk, made without training."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lorascope.measure.environment import environment
from lorascope.message import Message
from lorascope.records import (
    EvalRecord,
    OutcomeState,
    ResolvedStudy,
    StepRecord,
    SystemSample,
    TrialOutcome,
    TrialRecord,
)
from lorascope.search.trials import plan_trials
from lorascope.spec.load import dump_spec
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore

_TOKENS = 200
_ROWS = 100
_PORTION = 10_000


def write(folder: Path, spec: StudySpec, *, total_steps: int, done: int) -> None:
    """Write a study of which every trial has done so many of its steps, and that was evaluated ten times on the way."""
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(dump_spec(spec), encoding="utf-8")
    trials = plan_trials(spec)
    with StudyStore.create(folder / "study.db") as store:
        store.put(_facts(total_steps))
        store.put(environment(device="cpu", device_name="cpu", seeds=spec.seeds, command="lorascope run"))
        store.put_all(trials)
        for trial in trials:
            for first in range(1, done + 1, _PORTION):
                store.put_all(list(_steps(trial.trial_id, range(first, min(first + _PORTION, done + 1)), total_steps)))
            every = max(1, total_steps // 10)
            store.put_all([_evaluation(trial.trial_id, step, total_steps) for step in range(0, done + 1, every)])
            state: OutcomeState = "finished" if done == total_steps else "running"
            store.put(TrialOutcome(trial_id=trial.trial_id, state=state, steps=done, message=None))
        store.put_all([_sample(second) for second in range(1, 61)])


def append(folder: Path, step: int, *, total_steps: int) -> None:
    """Write one more step of every trial."""
    with StudyStore.create(folder / "study.db") as store:
        store.put_all(
            [record for trial in store.read(TrialRecord) for record in _steps(trial.trial_id, [step], total_steps)]
        )


def _steps(trial_id: str, steps: Iterable[int], total_steps: int) -> Iterable[StepRecord]:
    for step in steps:
        # A number that belongs to the step, so that a study can be made longer at any time
        noise = float(np.sin(step * 12.9898) * 0.1)
        yield StepRecord(
            trial_id=trial_id, step=step, nats=_TOKENS * (_curve(step, total_steps) + noise), target_tokens=_TOKENS,
            tokens=_TOKENS, learning_rate=3e-4, grad_norm=0.5, seconds=0.3, warmup=step == 1, group=0,
        )  # fmt: skip


def _evaluation(trial_id: str, step: int, total_steps: int) -> EvalRecord:
    hardness = np.random.default_rng(7).normal(0, 0.5, _ROWS)
    of_trial = np.random.default_rng(len(trial_id) + step).normal(0, 0.02, _ROWS)
    nats = 20 * (_curve(step, total_steps) + hardness + of_trial)
    return EvalRecord(
        trial_id=trial_id, step=step, example_nats=tuple(nats.tolist()), example_target_tokens=(20,) * _ROWS,
        seconds=1.0,
    )  # fmt: skip


def _curve(step: int, total_steps: int) -> float:
    return 1.2 + 1.2 * float(np.exp(-6 * step / total_steps))


def _sample(second: int) -> SystemSample:
    return SystemSample(
        seconds=float(second),
        rss_bytes=2_000_000_000 + 1_000_000 * (second % 20),
        cpu_percent=190.0,
        device_allocated_bytes=None,
        memory_traffic_bytes=None,
    )


def _facts(total_steps: int) -> ResolvedStudy:
    return ResolvedStudy(
        model="made-up/model", dataset="made-up/rows", device="cpu", dtype="float32",
        dtype_reason=Message("asked"), packing=True,
        packing_reason=Message("asked"), train_examples=8 * total_steps, eval_examples=_ROWS,
        train_tokens=8 * _TOKENS * total_steps,
        train_target_tokens=_TOKENS * total_steps, eval_target_tokens=20 * _ROWS, total_steps=total_steps,
        base_parameters=134_515_008, target_modules=("layers.0.q_proj",), data_hash="made up", model_hash="",
        data_notes=(), kernels=False, kernels_reason=Message("asked"), eval_tokens=20 * _ROWS,
    )  # fmt: skip

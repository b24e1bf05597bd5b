"""Train a trial group on a tiny model and keep its results."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from lorascope.data.dataset import Splits
from lorascope.engine.forward import FrozenModel
from lorascope.engine.instrumentation import Probe
from lorascope.engine.loop import TrialGroup, train_group
from lorascope.engine.trial import TrainingTrial
from lorascope.engine.verify import prepare_model
from lorascope.measure.clock import StepClock
from lorascope.records import EvalRecord, StepRecord, TrialOutcome, TrialRecord
from lorascope.search.halving import Rungs
from lorascope.search.trials import plan_trials
from lorascope.spec.schema import StudySpec
from support.tiny_models import TARGETS, make_model, make_splits


@dataclass
class Kept:
    """A Recorder that keeps everything in memory."""

    step_records: list[StepRecord] = field(default_factory=list)
    evaluations: list[EvalRecord] = field(default_factory=list)
    outcomes: dict[str, TrialOutcome] = field(default_factory=dict)
    trials: dict[str, TrainingTrial] = field(default_factory=dict)

    def steps(self, records: Sequence[StepRecord]) -> None:
        self.step_records.extend(records)

    def evaluation(self, record: EvalRecord) -> None:
        self.evaluations.append(record)

    def ended(self, trials: Sequence[TrainingTrial], outcomes: Sequence[TrialOutcome]) -> None:
        for trial, outcome in zip(trials, outcomes, strict=True):
            self.outcomes[outcome.trial_id] = outcome
            self.trials[outcome.trial_id] = trial

    def checkpoint_if_due(self, trials: Sequence[TrainingTrial]) -> None:
        pass

    def losses(self, trial_id: str) -> list[float]:
        return [r.nats / r.target_tokens for r in self.step_records if r.trial_id == trial_id]

    def eval_nats(self, trial_id: str) -> list[tuple[float, ...]]:
        return [r.example_nats for r in self.evaluations if r.trial_id == trial_id]


def make_spec(**changes: Any) -> StudySpec:
    """A short study of three ranks with everything on that could couple trials."""
    fields: dict[str, object] = {
        "ranks": (2, 4, 8), "alpha_rule": "proportional", "lora_dropout": 0.3, "learning_rates": (5e-3,),
        "per_device_train_batch_size": 4, "max_steps": 6, "eval_steps": 3, "warmup_steps": 2, "max_grad_norm": 0.5,
        "tokens_per_pass": 64, "weight_decay": 0.01, "target_modules": None,
    }  # fmt: skip
    return StudySpec.model_validate(fields | changes)


def prepared(
    kind: str, *, dtype: torch.dtype = torch.float64, packing: bool = True, kernels: bool = True
) -> FrozenModel:
    frozen, _ = prepare_model(
        make_model(kind, dtype), TARGETS[kind], make_splits().train, packing=packing, kernels=kernels
    )
    return frozen


def run_group(
    spec: StudySpec,
    kind: str = "llama",
    *,
    records: Sequence[TrialRecord] | None = None,
    frozen: FrozenModel | None = None,
    splits: Splits | None = None,
    prepare_trials: object = None,
    rungs: Rungs | None = None,
    probe: Probe | None = None,
) -> Kept:
    """Train a group from its start and return its results."""
    frozen = frozen or prepared(kind)
    kept = Kept()
    trials = [
        TrainingTrial(record, spec, frozen.layers, frozen.model.dtype, frozen.modules_to_save)
        for record in records or plan_trials(spec)
    ]
    if callable(prepare_trials):
        prepare_trials(trials)
    group = TrialGroup(
        frozen=frozen, trials=trials, splits=splits or make_splits(), spec=spec, total_steps=spec.max_steps or 1,
        recorder=kept, probe=probe or StepClock(torch.device("cpu")), check_stop=lambda: None,
        rungs=rungs or Rungs(),
    )  # fmt: skip
    train_group(group)
    return kept

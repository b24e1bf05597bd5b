"""Make model folders and studies, run them, and read the results."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from lorascope.data.dataset import Example
from lorascope.engine.forward import MicroBatchRow
from lorascope.engine.trial import TrainingTrial
from lorascope.engine.verify import prepare_model
from lorascope.modeling.adapters.adapter import attach
from lorascope.modeling.adapters.peft_io import load_peft
from lorascope.records import EvalRecord, LookRecord, ResolvedStudy, StepRecord, TrialOutcome, TrialRecord
from lorascope.run.executors import group_recorder
from lorascope.run.study import run_study
from lorascope.run.trackers import SoloResult
from lorascope.search.trials import plan_trials
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from lorascope.text.looks import describe_look
from support.tiny_models import make_model, train_tokenizer

KINDS = ("llama", "opt", "gpt2")


def save_model_folder(folder: Path, kind: str, **changes: Any) -> None:
    """Save a tiny model with its tokenizer as ``save_pretrained`` does."""
    tokenizer = train_tokenizer(bos=False)
    make_model(kind, torch.float32, vocabulary=len(tokenizer), **changes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def study_of(model: str, dataset: str, **changes: Any) -> StudySpec:
    """A study of two ranks and six steps in float32, with dropout, without what only takes time."""
    fields: dict[str, object] = {
        "model": model, "dataset": dataset, "ranks": (2, 4), "alpha_rule": "proportional", "lora_dropout": 0.2,
        "learning_rates": (5e-3,), "per_device_train_batch_size": 4, "max_steps": 6, "eval_steps": 2,
        "max_length": 48, "eval_examples": 4, "tokens_per_pass": 256, "dtype": "float32", "device": "cpu",
        "cost": "off", "forgetting_text": "none", "target_modules": None, "samples": 0,
    }  # fmt: skip
    return StudySpec.model_validate(fields | changes)


@dataclass
class Watcher:
    """A Tracker that keeps what it hears and calls ``at_step`` after each step, ``at_note`` with each note."""

    at_step: Callable[[int], None] = lambda step: None
    at_note: Callable[[str], None] = lambda text: None
    phases: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)
    outcomes: list[TrialOutcome] = field(default_factory=list)
    progresses: list[tuple[float, float]] = field(default_factory=list)

    def phase(self, text: str) -> None:
        self.phases.append(text)

    def progress(self, share_done: float, seconds_left: float) -> None:
        self.progresses.append((share_done, seconds_left))

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.at_note(text)

    def warning(self, text: str) -> None:
        self.warnings.append(text)

    def begin(self, resolved: ResolvedStudy, trials: Sequence[TrialRecord], done: Sequence[StepRecord]) -> None:
        self.begun.append(max((record.step for record in done), default=0))

    def solo_cost(self, result: SoloResult) -> None:
        pass

    def look(self, look: LookRecord) -> None:
        self.note(describe_look(look))

    def step(self, records: Sequence[StepRecord]) -> None:
        self.steps.append(records[0].step)
        self.at_step(records[0].step)

    def evaluation(self, record: EvalRecord) -> None:
        pass

    def outcome(self, outcome: TrialOutcome) -> None:
        self.outcomes.append(outcome)

    def end(self) -> None:
        pass


def execute(
    spec: StudySpec,
    folder: Path,
    at_step: Callable[[int], None] = lambda step: None,
    at_note: Callable[[str], None] = lambda text: None,
) -> Watcher:
    watcher = Watcher(at_step=at_step, at_note=at_note)
    run_study(spec, folder, trackers=[watcher], command="lorascope run")
    return watcher


def checkpoint_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save the state after every step, however long that takes."""
    monkeypatch.setattr(group_recorder, "_CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(group_recorder, "_CHECKPOINT_SHARE", float("inf"))


@dataclass(frozen=True)
class Left:
    """What a study left behind, without what no two runs share: times."""

    steps: dict[str, list[StepRecord]]
    evaluations: dict[str, list[EvalRecord]]
    outcomes: dict[str, TrialOutcome]
    adapters: dict[str, bytes]


def read_study(folder: Path) -> Left:
    with StudyStore.open(folder / "study.db") as store:
        names = [trial.trial_id for trial in store.read(TrialRecord)]
        steps = {
            name: [replace(r, seconds=0.0, warmup=False) for r in store.read(StepRecord, trial_id=name)]
            for name in names
        }
        evaluations = {name: [replace(r, seconds=0.0) for r in store.read(EvalRecord, trial_id=name)] for name in names}
        outcomes = store.outcomes()
    files = sorted((folder / "adapters").rglob("*.*"))
    adapters = {str(file.relative_to(folder)): file.read_bytes() for file in files if file.is_file()}
    return Left(steps=steps, evaluations=evaluations, outcomes=outcomes, adapters=adapters)


def own_logits(spec: StudySpec, base: PreTrainedModel, adapter: Path, rows: Sequence[Example]) -> list[torch.Tensor]:
    """Logits as lorascope computes them with an adapter that it saved."""
    frozen, _ = prepare_model(base, spec.target_sets[0], rows, packing=True, kernels=True)
    assert frozen.packing
    trial = TrainingTrial(plan_trials(spec)[0], spec, frozen.layers, torch.float32)
    load_peft(adapter, trial.adapter.layers)
    attach(frozen.layers, [trial.adapter])
    return frozen.logits([MicroBatchRow(example=row, adapter=0) for row in rows])

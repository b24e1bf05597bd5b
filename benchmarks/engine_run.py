"""One measured process of lorascope: the joint training of a pack, then the bound of some of its steps."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import psutil
import torch

from bound import attention_seconds, record_products, recorded_attention, replay_seconds
from jobs import Job, Result, StepShare, peak_rss_bytes, seconds_since, shown_source, study_of
from lorascope.data.dataset import Example, Examples, Splits
from lorascope.engine.forward import FrozenModel
from lorascope.engine.loop import TrialGroup, train_group
from lorascope.engine.step import train_step
from lorascope.engine.trial import TrainingTrial
from lorascope.measure.clock import StepClock
from lorascope.measure.memory import retain_freed_memory
from lorascope.records import EvalRecord, LookRecord, ResolvedStudy, StepRecord, TrialOutcome, TrialRecord
from lorascope.run.prepare import PreparedStudy, prepare_study
from lorascope.run.trackers import SoloResult
from lorascope.search.trials import plan_trials


@dataclass(kw_only=True)
class KeptSteps:
    """A Recorder that keeps the steps and nothing else, and a Tracker that says nothing."""

    records: list[StepRecord] = field(default_factory=list)

    def steps(self, records: Sequence[StepRecord]) -> None:
        self.records.extend(records)

    def evaluation(self, record: EvalRecord) -> None:
        assert not record.example_nats, "the benchmark evaluates nothing"

    def ended(self, trials: Sequence[TrainingTrial], outcomes: Sequence[TrialOutcome]) -> None:
        for trial, outcome in zip(trials, outcomes, strict=True):
            assert outcome.state == "finished", f"{trial.record.trial_id}: {outcome.message}"

    def checkpoint_if_due(self, trials: Sequence[TrainingTrial]) -> None: ...

    def phase(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...

    def warning(self, text: str) -> None: ...

    def begin(self, resolved: ResolvedStudy, trials: Sequence[TrialRecord], done: Sequence[StepRecord]) -> None: ...

    def progress(self, share_done: float, seconds_left: float) -> None: ...

    def solo_cost(self, result: SoloResult) -> None: ...

    def look(self, look: LookRecord) -> None: ...

    def step(self, records: Sequence[StepRecord]) -> None: ...

    def outcome(self, outcome: TrialOutcome) -> None: ...

    def end(self) -> None: ...


def train_lorascope(job: Job) -> Result:
    """Train all ranks of a job together, as ``lorascope run`` does but without evaluations."""
    spec, kept = study_of(job), KeptSteps()
    study = prepare_study(spec, None, kept)
    clock = StepClock(study.device)
    group = joint_group(study, kept, clock, job.row_lengths)
    before = psutil.Process().memory_info().rss
    start = time.perf_counter()
    with retain_freed_memory(study.device):
        train_group(group)
        train_seconds = time.perf_counter() - start
        measured = Result(
            program=job.program,
            ranks=job.ranks,
            train_seconds=train_seconds,
            process_seconds=seconds_since(job.started),
            peak_rss_bytes=peak_rss_bytes(),
            before_rss_bytes=before,
            steps=group.total_steps,
            tokens=sum(record.tokens for record in kept.records),
            train_loss={name: statistics.fmean(losses) for name, losses in _losses(kept.records).items()},
            step_losses=_losses(kept.records),
            step_seconds=tuple(clock.step_seconds),
            step_tokens=tuple(clock.step_tokens),
            trainable_parameters=sum(trial.adapter.flat.numel() for trial in group.trials),
            data_hash=study.splits.data_hash,
            threads=torch.get_num_threads(),
            dtype=study.resolved.dtype,
            settings=spec.model_dump(mode="json")
            | {
                "model": shown_source(spec.model),
                "dataset": " + ".join(map(shown_source, spec.dataset_names)),
                "evaluation": "none",
            },
        )
        return measured.model_copy(update={"shares": _shares(group, measured.step_seconds, job.bound_steps)})


def joint_group(
    study: PreparedStudy, recorder: KeptSteps, clock: StepClock, row_lengths: tuple[int, ...] | None = None
) -> TrialGroup:
    """Return all trials of a study in one group, with no row held out."""
    frozen = study.frozen
    return TrialGroup(
        frozen=frozen,
        trials=[TrainingTrial(r, study.spec, frozen.layers, frozen.model.dtype) for r in plan_trials(study.spec)],
        splits=_splits(study.splits, row_lengths),
        spec=study.spec,
        total_steps=study.resolved.total_steps,
        recorder=recorder,
        probe=clock,
        check_stop=_go_on,
    )


def repeat_step(group: TrialGroup, step: int, frozen: FrozenModel) -> Sequence[StepRecord]:
    """Take a step on the rows that it had, over the group's base or another form of it."""
    for trial in group.trials:
        trial.steps_done = step
    return train_step(
        frozen,
        group.trials,
        group.splits.train,
        group.spec,
        total_steps=group.total_steps,
        probe=group.probe,
        warmup=False,
        check_stop=_go_on,
    )


def _go_on() -> None:
    """Let the training go on: nobody stops a benchmark."""


def _splits(splits: Splits, row_lengths: tuple[int, ...] | None) -> Splits:
    """Leave out the held-out rows; where lengths are given, make rows of random tokens instead of the real ones."""
    if row_lengths is None:
        return replace(splits, eval=())
    known = np.unique(np.concatenate([example.input_ids for example in splits.train]))
    random = np.random.default_rng(0)
    rows = []
    for length in row_lengths:
        mask = np.ones(length, dtype=bool)
        mask[0] = False
        rows.append(Example(input_ids=random.choice(known, length), target_mask=mask))
    return replace(splits, train=Examples.of(rows), eval=())


def _losses(records: Sequence[StepRecord]) -> dict[str, tuple[float, ...]]:
    losses: dict[str, tuple[float, ...]] = {}
    for record in records:
        losses[record.trial_id] = (*losses.get(record.trial_id, ()), record.nats / record.target_tokens)
    return losses


def _shares(group: TrialGroup, training_seconds: Sequence[float], n_steps: int) -> tuple[StepShare, ...]:
    """Repeat the first steps after the warm-up, on the rows they had, and time their products beside them."""
    first = min(1, group.total_steps - 1)
    return tuple(
        _share(group, step, training_seconds[step]) for step in range(first, min(first + n_steps, group.total_steps))
    )


def _share(group: TrialGroup, step: int, training_seconds: float) -> StepShare:
    def again() -> Sequence[StepRecord]:
        return repeat_step(group, step, group.frozen)

    with recorded_attention() as attention:
        products = record_products(again)
    step_seconds = again()[0].seconds
    return StepShare(
        step=step + 1,
        training_seconds=training_seconds,
        step_seconds=step_seconds,
        product_seconds=replay_seconds(products),
        attention_seconds=attention_seconds(attention),
        products=len(products) + len(attention),
        flops=sum(product.flops for product in (*products, *attention)),
    )

"""One optimizer step of a trial group: forward and backward of every trial's rows, then each trial's own update."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch

from lorascope.data.dataset import Example
from lorascope.data.row_order import step_rows
from lorascope.engine.forward import FrozenModel, MicroBatchRow
from lorascope.engine.instrumentation import Probe
from lorascope.engine.lr_schedule import learning_rate_factor
from lorascope.engine.microbatch import shares_prefixes, split_rows
from lorascope.engine.oom import retry_smaller_on_oom
from lorascope.engine.trial import TrainingTrial
from lorascope.records import StepRecord
from lorascope.spec.schema import StudySpec


def train_step(
    frozen: FrozenModel,
    trials: Sequence[TrainingTrial],
    examples: Sequence[Example],
    spec: StudySpec,
    *,
    total_steps: int,
    probe: Probe,
    warmup: bool,
    check_stop: Callable[[], None],
    group: int = 0,
) -> list[StepRecord]:
    """Take one step with every trial of a group; all of them must have done equally many steps.

    Each trial's loss is divided by its own count of target tokens, and the losses are summed, so that no trial's
    gradient depends on another trial.

    If memory runs out before the first update, the step begins again with smaller micro-batches: the same sums over the
    same rows, in another order.

    Returns:
        One record for each trial, in order. A trial whose gradient is not finite is marked as diverged, not updated.
    """
    batch = _Batch.of(trials, examples, spec)

    def add_gradients(tokens_per_pass: int) -> list[float]:
        probe.step_begins()
        return _add_gradients(frozen, trials, batch, spec, tokens_per_pass, probe, check_stop)

    nats = retry_smaller_on_oom(frozen.limit, spec.tokens_per_pass, batch.lengths, add_gradients)
    losses = [n / targets for n, targets in zip(nats, batch.targets, strict=True)]
    probe.phase_begins("optimizer")
    updates = [_update(trial, loss, spec, total_steps) for trial, loss in zip(trials, losses, strict=True)]
    seconds = probe.step_ends(tokens=sum(batch.tokens))
    return [
        StepRecord(
            trial_id=trial.record.trial_id,
            step=batch.step + 1,
            nats=nats[i],
            target_tokens=batch.targets[i],
            tokens=batch.tokens[i],
            learning_rate=updates[i][0],
            grad_norm=updates[i][1],
            seconds=seconds,
            warmup=warmup,
            group=group,
        )
        for i, trial in enumerate(trials)
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Batch:
    """The rows of one step, with counts for each trial."""

    step: int
    rows: Sequence[Sequence[MicroBatchRow]]
    targets: Sequence[int]
    tokens: Sequence[int]

    @classmethod
    def of(cls, trials: Sequence[TrainingTrial], examples: Sequence[Example], spec: StudySpec) -> Self:
        step = trials[0].steps_done
        rows = [_trial_rows(trial, index, examples, spec, step) for index, trial in enumerate(trials)]
        return cls(
            step=step,
            rows=rows,
            targets=[sum(row.example.n_targets for row in trial_rows) for trial_rows in rows],
            tokens=[sum(row.example.n_tokens for row in trial_rows) for trial_rows in rows],
        )

    @property
    def lengths(self) -> list[int]:
        return [row.example.n_tokens for trial_rows in self.rows for row in trial_rows]


def _add_gradients(  # noqa: PLR0917 - all of them the step's own
    frozen: FrozenModel,
    trials: Sequence[TrainingTrial],
    batch: _Batch,
    spec: StudySpec,
    tokens_per_pass: int,
    probe: Probe,
    check_stop: Callable[[], None],
) -> list[float]:
    """Send all rows through the model, forward and backward, and return each trial's nats."""
    nats = [0.0] * len(trials)
    for trial in trials:
        trial.adapter.zero_grad()
    share = shares_prefixes(frozen, spec, training=True)
    for microbatch in split_rows(frozen, batch.rows, tokens_per_pass=tokens_per_pass, share=share):
        check_stop()
        for n, row in zip(_send(frozen, microbatch, batch, probe, check_stop), microbatch, strict=True):
            nats[row.adapter] += n
    return nats


def _send(
    frozen: FrozenModel,
    microbatch: Sequence[MicroBatchRow],
    batch: _Batch,
    probe: Probe,
    check_stop: Callable[[], None],
) -> list[float]:
    """Send rows forward and backward, and return each one's nats.

    No tensor of a micro-batch outlives it: the rest of its graph would fragment the memory of the next one.
    """
    probe.phase_begins("forward")
    row_nats = [row.sum() for row in frozen.row_nats(microbatch, check_stop=check_stop)]
    mean_nats = [n / batch.targets[row.adapter] for n, row in zip(row_nats, microbatch, strict=True)]
    loss = torch.stack(mean_nats).sum()
    probe.phase_begins("backward")
    loss.backward()
    nats: list[float] = torch.stack(row_nats).tolist()
    return nats


def _update(trial: TrainingTrial, loss: float, spec: StudySpec, total_steps: int) -> tuple[float, float]:
    factor = learning_rate_factor(spec, step=trial.steps_done, total_steps=total_steps)
    learning_rate = trial.record.learning_rate * factor
    return learning_rate, trial.update(loss=loss, learning_rate=learning_rate, max_grad_norm=spec.max_grad_norm)


def _trial_rows(
    trial: TrainingTrial, index: int, examples: Sequence[Example], spec: StudySpec, step: int
) -> list[MicroBatchRow]:
    seed = trial.record.seed
    chosen = step_rows(spec, len(examples), seed=seed, step=step)
    streams = [(seed, step, i) if spec.lora_dropout > 0 else None for i in range(len(chosen))]
    return [
        MicroBatchRow(example=examples[row], adapter=index, stream=stream)
        for row, stream in zip(chosen, streams, strict=True)
    ]

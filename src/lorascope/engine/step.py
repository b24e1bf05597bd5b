"""One optimizer step of a pack: forward and backward of every trial's rows, then each trial's own update."""

from collections.abc import Callable, Sequence

import torch

from lorascope.data.batches import step_rows
from lorascope.data.examples import Example
from lorascope.engine.forward import FrozenModel, PassRow
from lorascope.engine.passes import plan_passes, shares_prefixes
from lorascope.engine.probe import Probe
from lorascope.engine.schedule import learning_rate_factor
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
) -> list[StepRecord]:
    """Take one step with every trial of a pack; all of them must have done equally many steps.

    Each trial's loss is divided by its own count of target tokens, and the losses are summed, so that no trial's
    gradient depends on another trial.

    Returns:
        One record a trial, in order. A trial whose gradient is not finite is marked as diverged and not updated.
    """
    step = trials[0].steps_done
    rows = [_trial_rows(trial, index, examples, spec, step) for index, trial in enumerate(trials)]
    targets = [sum(row.example.n_targets for row in trial_rows) for trial_rows in rows]
    tokens = [sum(row.example.n_tokens for row in trial_rows) for trial_rows in rows]
    nats = [0.0] * len(trials)
    share = shares_prefixes(frozen, spec, training=True)
    probe.step_begins()
    for one_pass in plan_passes(rows, tokens_per_pass=spec.tokens_per_pass, padded=not frozen.packing, share=share):
        check_stop()
        probe.phase_begins("forward")
        row_nats = [row.sum() for row in frozen.row_nats(one_pass)]
        loss = torch.stack([n / targets[row.adapter] for n, row in zip(row_nats, one_pass, strict=True)]).sum()
        probe.phase_begins("backward")
        loss.backward()
        for n, row in zip(torch.stack(row_nats).tolist(), one_pass, strict=True):
            nats[row.adapter] += n
    probe.phase_begins("optimizer")
    updates = [_update(trial, spec, total_steps) for trial in trials]
    seconds = probe.step_ends(tokens=sum(tokens))
    return [
        StepRecord(
            trial_id=trial.record.trial_id,
            step=step + 1,
            nats=nats[i],
            target_tokens=targets[i],
            tokens=tokens[i],
            learning_rate=updates[i][0],
            grad_norm=updates[i][1],
            seconds=seconds,
            warmup=warmup,
        )
        for i, trial in enumerate(trials)
    ]


def _update(trial: TrainingTrial, spec: StudySpec, total_steps: int) -> tuple[float, float]:
    factor = learning_rate_factor(spec, step=trial.steps_done, total_steps=total_steps)
    learning_rate = trial.record.learning_rate * factor
    return learning_rate, trial.update(learning_rate=learning_rate, max_grad_norm=spec.max_grad_norm)


def _trial_rows(
    trial: TrainingTrial, index: int, examples: Sequence[Example], spec: StudySpec, step: int
) -> list[PassRow]:
    seed = trial.record.seed
    chosen = step_rows(spec, len(examples), seed=seed, step=step)
    streams = [(seed, step, i) if spec.lora_dropout > 0 else None for i in range(len(chosen))]
    return [
        PassRow(example=examples[row], adapter=index, stream=stream)
        for row, stream in zip(chosen, streams, strict=True)
    ]

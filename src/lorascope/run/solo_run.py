"""One turn of a rank alone: a few steps, timed, with the memory of their phases, and what they had to do."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

from lorascope.data.dataset import Example
from lorascope.data.row_order import step_rows
from lorascope.engine.evaluate import example_nats
from lorascope.engine.instrumentation import Phase
from lorascope.engine.loop import WARMUP_STEPS
from lorascope.engine.step import train_step
from lorascope.engine.trial import TrainingTrial
from lorascope.measure.clock import StepClock
from lorascope.measure.flops import MatmulCounter, SavedTensorCounter
from lorascope.measure.memory import MemoryMeter, release_memory
from lorascope.modeling.adapters.adapter import attach
from lorascope.records import SoloRun, TrialRecord
from lorascope.run.prepare import PreparedStudy
from lorascope.spec.schema import StudySpec

_LEARNING_RATE = 1e-6
_LOOKED_AT = 1000
"""Steps among which the typical and the heaviest batch are looked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batches:
    """Which rows are measured on."""

    typical: int
    """The step whose tokens are nearest to the mean of all training rows."""
    heaviest: int
    """The step with the most tokens."""
    heaviest_tokens: int
    held_out: Sequence[Example]
    """What an evaluation sends through the model at once."""


def choose_batches(study: PreparedStudy, seed: int) -> Batches:
    """Look for the batches among the first steps of a seed."""
    train, spec = study.splits.train, study.spec
    tokens = [
        sum(train[row].n_tokens for row in step_rows(spec, len(train), seed=seed, step=step))
        for step in range(min(study.resolved.total_steps, _LOOKED_AT))
    ]
    rows = spec.per_device_train_batch_size * spec.gradient_accumulation_steps
    mean = study.resolved.train_tokens / len(train) * min(rows, len(train))
    return Batches(
        typical=min(range(len(tokens)), key=lambda step: abs(tokens[step] - mean)),
        heaviest=max(range(len(tokens)), key=tokens.__getitem__),
        heaviest_tokens=max(tokens),
        held_out=_one_microbatch(study.splits.eval, spec),
    )


def _one_microbatch(rows: Sequence[Example], spec: StudySpec) -> Sequence[Example]:
    room, count = spec.tokens_per_pass, 0
    while count < len(rows) and (count == 0 or rows[count].n_tokens <= room):
        room -= rows[count].n_tokens
        count += 1
    return rows[:count]


@dataclass
class _CostProbe:
    """Times steps and reads the memory of their phases."""

    clock: StepClock
    meter: MemoryMeter
    saved: SavedTensorCounter | None = None
    """Told when a forward ends, where what it saved is counted."""
    cpu_seconds: list[float] = field(default_factory=list)
    _cpu_began: float = 0.0

    def step_begins(self) -> None:
        """Start the clock."""
        self._cpu_began = time.process_time()
        self.clock.step_begins()

    def phase_begins(self, phase: Phase) -> None:
        """Read the peak of the phase before."""
        if phase == "backward" and self.saved is not None:
            self.saved.microbatch_ends()
        self.meter.begin(phase)

    def step_ends(self, *, tokens: int) -> float:
        """Stop the clock and return the step's seconds."""
        seconds = self.clock.step_ends(tokens=tokens)
        self.cpu_seconds.append(time.process_time() - self._cpu_began)
        self.meter.begin("")
        return seconds


@dataclass(frozen=True, kw_only=True, eq=False)
class _Taken:
    """What the steps of a turn left."""

    clock: StepClock
    cpu_seconds: float
    held_bytes: int
    warmup_samples: int
    products: MatmulCounter | None
    saved: SavedTensorCounter | None


@dataclass(frozen=True, kw_only=True, eq=False)
class SoloRunner:
    """One rank alone for a few steps."""

    study: PreparedStudy
    trial: TrialRecord
    number: int
    """Counted from 0."""
    batches: Batches
    check_stop: Callable[[], None]

    def take(self, n_steps: int, *, last: bool) -> SoloRun:
        """Take a step of warm-up and ``n_steps`` measured ones.

        The first turn's warm-up is on the typical batch, whose shapes are then known, and what it has to do is counted.
        The last turn's is the heaviest step, for its peak, and a pass of an evaluation follows.
        """
        device, layers = self.study.device, self.study.frozen.layers
        release_memory(device)
        with MemoryMeter(device) as meter:
            taken = self._steps(meter, n_steps, last=last)
            attach(layers, [])
        release_memory(device)
        peaks, clock = meter.peaks_bytes, taken.clock
        return SoloRun(
            rank=self.trial.rank,
            turn=self.number,
            step_seconds=tuple(clock.step_seconds),
            warmup_steps=WARMUP_STEPS,
            step_tokens=tuple(clock.step_tokens),
            cpu_seconds=taken.cpu_seconds,
            base_bytes=meter.base_bytes,
            forward_peak_bytes=peaks["forward"],
            backward_peak_bytes=peaks["backward"],
            optimizer_peak_bytes=peaks["optimizer"],
            evaluation_peak_bytes=peaks.get("evaluation"),
            held_bytes=taken.held_bytes,
            after_bytes=meter.read(),
            reserved_peak_bytes=meter.reserved_bytes,
            memory_method=meter.method,
            samples_bytes=tuple(meter.samples_bytes),
            warmup_samples=taken.warmup_samples,
            heaviest_tokens=self.batches.heaviest_tokens if taken.saved else None,
            activation_bytes=taken.saved.largest_bytes if taken.saved else None,
            product_flops=taken.products.flops if taken.products else None,
            product_bytes=taken.products.bytes if taken.products else None,
        )

    def _steps(self, meter: MemoryMeter, n_steps: int, *, last: bool) -> _Taken:
        frozen, batches = self.study.frozen, self.batches
        # A step costs the same at any learning rate, and at this one it cannot diverge
        record = replace(self.trial, learning_rate=_LEARNING_RATE)
        alone = TrainingTrial(record, self.study.spec, frozen.layers, frozen.model.dtype)
        attach(frozen.layers, [alone.adapter])
        known = (*frozen.model.parameters(), *frozen.model.buffers(), *alone.adapter.tensors())
        saved, products = SavedTensorCounter(known) if last else None, MatmulCounter() if self.number == 0 else None
        probe = _CostProbe(StepClock(self.study.device), meter, saved)
        with saved.counting() if saved else nullcontext(), products or nullcontext():
            self._step(alone, batches.heaviest if last else batches.typical, probe)
        warmup_samples, probe.saved = len(meter.samples_bytes), None
        for _ in range(n_steps):
            self._step(alone, batches.typical, probe)
        held = meter.read()
        if last:
            self._evaluate(meter)
        return _Taken(
            clock=probe.clock,
            cpu_seconds=math.fsum(probe.cpu_seconds[WARMUP_STEPS:]),
            held_bytes=held,
            warmup_samples=warmup_samples,
            products=products,
            saved=saved,
        )

    def _evaluate(self, meter: MemoryMeter) -> None:
        """Send held-out rows through the model once, if there are any."""
        if self.batches.held_out:
            meter.begin("evaluation")
            example_nats(self.study.frozen, 0, self.batches.held_out, self.study.spec, check_stop=self.check_stop)
            meter.begin("")

    def _step(self, alone: TrainingTrial, step: int, probe: _CostProbe) -> None:
        alone.steps_done = step
        train_step(
            self.study.frozen,
            [alone],
            self.study.splits.train,
            self.study.spec,
            total_steps=self.study.resolved.total_steps,
            probe=probe,
            warmup=False,
            check_stop=self.check_stop,
        )

"""Solo runs: the cost of each rank alone, from a few steps before joint training that are thrown away.

Ranks alternate (8, 128, 256, then 256, 128, 8, ...), so that a machine that slows down or warms up favours none. Every
measured step is on the same batch, the one nearest to the mean number of tokens, so that the machine alone makes the
times of a rank differ. The heaviest batch comes once, as the warm-up of a rank's last repeat, for its peak.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace

import torch

from lorascope.analysis.cost.solo_runs import costs_by_rank
from lorascope.data.dataset import Example
from lorascope.data.row_order import step_tokens
from lorascope.engine.evaluate import example_nats
from lorascope.engine.instrumentation import Phase
from lorascope.engine.loop import WARMUP_STEPS
from lorascope.engine.oom import is_out_of_memory
from lorascope.engine.step import train_step
from lorascope.engine.trial import TrainingTrial
from lorascope.measure.clock import StepClock
from lorascope.measure.flops import MatmulCounter, SavedTensorCounter
from lorascope.measure.machine_rates import machine_rates
from lorascope.measure.memory import MemoryMeter, release_memory
from lorascope.measure.sampler import SystemSampler
from lorascope.modeling.adapters.initialisation import kept_factors
from lorascope.records import Arm, BudgetRecord, GpuSample, MachineRates, SoloRun, TrialRecord
from lorascope.run.context import RunContext
from lorascope.run.prepare import PreparedStudy
from lorascope.run.sample_buffer import gpus_of
from lorascope.run.trackers import SoloResult, Tracker
from lorascope.search.solo_runs import EFFORTS, pending_solo_runs
from lorascope.search.trials import planned_arms
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from lorascope.text.numbers import arm_text

_LEARNING_RATE = 1e-6
"""A step costs the same at any learning rate, and at this one it cannot diverge."""
_SEARCHED_STEPS = 1000
"""Steps among which the typical and the heaviest batch are chosen."""
_GPU_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Batches:
    """Rows that costs are measured on."""

    typical: int
    """The step whose tokens are nearest to the mean of all training rows."""
    heaviest: int
    """The step with the most tokens."""
    heaviest_tokens: int
    held_out: Sequence[Example]
    """One micro-batch of an evaluation."""


def choose_batches(study: PreparedStudy, seed: int) -> Batches:
    """Choose the batches among the first steps of a seed."""
    train, spec = study.splits.train, study.spec
    tokens = step_tokens(spec, train.n_tokens, seed=seed, steps=min(study.resolved.total_steps, _SEARCHED_STEPS))
    rows = spec.per_device_train_batch_size * spec.gradient_accumulation_steps
    mean = study.resolved.train_tokens / len(train) * min(rows, len(train))
    return Batches(
        typical=min(range(len(tokens)), key=lambda step: abs(tokens[step] - mean)),
        heaviest=max(range(len(tokens)), key=tokens.__getitem__),
        heaviest_tokens=max(tokens),
        held_out=_one_microbatch(study.splits.eval, spec),
    )


def _one_microbatch(rows: Sequence[Example], spec: StudySpec) -> Sequence[Example]:
    left, count = spec.tokens_per_pass, 0
    while count < len(rows) and (count == 0 or rows[count].n_tokens <= left):
        left -= rows[count].n_tokens
        count += 1
    return rows[:count]


def measure_costs(run: RunContext, trials: Sequence[TrialRecord]) -> None:
    """Take the solo runs that are not stored yet; a rank that does not fit in memory stays without a measurement."""
    study, store = run.study, run.store
    by_arm = {trial.arm: trial for trial in reversed(trials)}
    pending = pending_solo_runs(study.spec, by_arm, store.read(SoloRun))
    budget = store.read_one(BudgetRecord)
    if not pending or (budget is not None and "solo_runs" in budget.left_out):
        return
    effort = EFFORTS[study.spec.cost]
    if store.read_one(MachineRates) is None:
        with _unless_out_of_memory(run.tracker, "the machine's rates were measured"):
            store.put(machine_rates(study.device, study.frozen.model.dtype))
        run.progress.lap("solo_runs")
    batches = choose_batches(study, by_arm[min(by_arm)].seed)
    failed: set[Arm] = set()
    for arm, repeat in pending:
        if arm in failed:
            continue
        name = arm_text(arm)
        run.tracker.phase(f"measuring what {name} costs alone, turn {repeat + 1} of {effort.repeats}")
        last = repeat == effort.repeats - 1
        solo = SoloRunner(study=study, trial=by_arm[arm], repeat=repeat, batches=batches, check_stop=run.check_stop)
        failed.add(arm)
        with _unless_out_of_memory(run.tracker, f"{name} was measured alone"):
            with _gpu_sampling(store, study.device, arm):
                store.put(solo.measure(effort.steps, last=last))
            failed.remove(arm)
        study.frozen.attach([])
        run.progress.solo_run(arm, repeat, store.read(SoloRun))
        if last and arm not in failed:
            run.tracker.solo_cost(_result(store.read(SoloRun), arm))
    left = pending_solo_runs(study.spec, planned_arms(study.spec), store.read(SoloRun))
    run.progress.expect_solo_runs(one for one in left if one[0] not in failed)


def _result(all_runs: Sequence[SoloRun], arm: Arm) -> SoloResult:
    """Combine a rank's runs, its memory on the base of the ranks that are done in its set of target modules."""
    targets, rank = arm
    runs = [run for run in all_runs if run.targets == targets]
    done = {run.rank for run in runs if run.heaviest_tokens is not None} | {rank}
    cost = costs_by_rank([run for run in runs if run.rank in done])[rank]
    return SoloResult(rank=rank, targets=targets, step_seconds=cost.median_seconds, peak_bytes=cost.peak_bytes)


@contextmanager
def _unless_out_of_memory(tracker: Tracker, what: str) -> Iterator[None]:
    """Note that memory ran out, and continue without the measurement."""
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        tracker.note(f"memory ran out while {what} ({error}); this is left out")


@contextmanager
def _gpu_sampling(store: StudyStore, device: torch.device, arm: Arm) -> Iterator[None]:
    """Read the GPU, if there is one, more often than in the rest of a run."""
    gpus = gpus_of(device)
    if gpus is None:
        yield
        return
    found: list[GpuSample] = []
    with SystemSampler(_GPU_SECONDS, lambda _, samples: found.extend(samples), gpus):
        yield
    store.put_all([replace(sample, targets=arm[0], rank=arm[1]) for sample in found])


@dataclass
class _CostProbe:
    """Times steps and reads the memory of their phases."""

    clock: StepClock
    meter: MemoryMeter
    saved: SavedTensorCounter | None = None
    """Counts the tensors that a forward saves."""
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
class _Steps:
    """Readings of a solo run's steps."""

    clock: StepClock
    cpu_seconds: float
    held_bytes: int
    warmup_samples: int
    products: MatmulCounter | None
    saved: SavedTensorCounter | None
    initial: frozenset[int]
    """Ids of the tensors that the adapter started from, where these were made from the base's weights."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SoloRunner:
    """Runs one rank alone for a few steps."""

    study: PreparedStudy
    trial: TrialRecord
    repeat: int
    """Counted from 0."""
    batches: Batches
    check_stop: Callable[[], None]

    def measure(self, n_steps: int, *, last: bool) -> SoloRun:
        """Take a warm-up step and ``n_steps`` measured ones.

        The first repeat's warm-up is on the typical batch, and its operations are counted. The last repeat's is the
        heaviest step, for its peak, and a micro-batch of an evaluation follows.

        Initial values made from the base's weights stay in memory from a rank's first repeat on. A rank alone would
        have its own and no others: these are taken off all readings, its own off those without its adapter.
        """
        device, layers = self.study.device, self.study.frozen.layers.values()
        release_memory(device)
        kept_before = kept_factors(layers)
        with MemoryMeter(device) as meter:
            steps = self._steps(meter, n_steps, last=last)
            self.study.frozen.attach([])
        release_memory(device)
        others = sum(n_bytes for tensor, n_bytes in kept_before.items() if tensor not in steps.initial)
        peaks, clock = {phase: peak - others for phase, peak in meter.peaks_bytes.items()}, steps.clock
        return SoloRun(
            targets=self.trial.targets,
            rank=self.trial.rank,
            repeat=self.repeat,
            step_seconds=tuple(clock.step_seconds),
            warmup_steps=WARMUP_STEPS,
            step_tokens=tuple(clock.step_tokens),
            cpu_seconds=steps.cpu_seconds,
            base_bytes=meter.base_bytes - sum(kept_before.values()),
            forward_peak_bytes=peaks["forward"],
            backward_peak_bytes=peaks["backward"],
            optimizer_peak_bytes=peaks["optimizer"],
            evaluation_peak_bytes=peaks.get("evaluation"),
            held_bytes=steps.held_bytes - others,
            after_bytes=meter.read() - sum(kept_factors(layers).values()),
            reserved_peak_bytes=meter.reserved_bytes,
            memory_method=meter.method,
            samples_bytes=tuple(reading - others for reading in meter.samples_bytes),
            warmup_samples=steps.warmup_samples,
            heaviest_tokens=self.batches.heaviest_tokens if steps.saved else None,
            activation_bytes=steps.saved.largest_bytes if steps.saved else None,
            product_flops=steps.products.flops if steps.products else None,
            product_bytes=steps.products.bytes if steps.products else None,
        )

    def _steps(self, meter: MemoryMeter, n_steps: int, *, last: bool) -> _Steps:
        frozen, batches = self.study.frozen, self.batches
        record = replace(self.trial, learning_rate=_LEARNING_RATE)
        layers = self.study.layers_of(record.targets)
        trial = TrainingTrial(record, self.study.spec, layers, frozen.model.dtype, frozen.modules_to_save)
        frozen.attach([trial.adapter])
        known = (*frozen.model.parameters(), *frozen.model.buffers(), *trial.adapter.tensors())
        saved, products = SavedTensorCounter(known) if last else None, MatmulCounter() if self.repeat == 0 else None
        probe = _CostProbe(StepClock(self.study.device), meter, saved)
        with saved.counting() if saved else nullcontext(), products or nullcontext():
            self._step(trial, batches.heaviest if last else batches.typical, probe)
        warmup_samples, probe.saved = len(meter.samples_bytes), None
        for _ in range(n_steps):
            self._step(trial, batches.typical, probe)
        held = meter.read()
        if last:
            self._evaluate(meter)
        return _Steps(
            clock=probe.clock,
            cpu_seconds=math.fsum(probe.cpu_seconds[WARMUP_STEPS:]),
            held_bytes=held,
            warmup_samples=warmup_samples,
            products=products,
            saved=saved,
            initial=frozenset(id(one) for own in trial.adapter.layers.values() for one in own.initial or ()),
        )

    def _evaluate(self, meter: MemoryMeter) -> None:
        """Evaluate one micro-batch of held-out rows, if there are any."""
        if self.batches.held_out:
            meter.begin("evaluation")
            example_nats(self.study.frozen, 0, self.batches.held_out, self.study.spec, check_stop=self.check_stop)
            meter.begin("")

    def _step(self, trial: TrainingTrial, step: int, probe: _CostProbe) -> None:
        trial.steps_done = step
        train_step(
            self.study.frozen,
            [trial],
            self.study.splits.train,
            self.study.spec,
            total_steps=self.study.resolved.total_steps,
            probe=probe,
            warmup=False,
            check_stop=self.check_stop,
        )

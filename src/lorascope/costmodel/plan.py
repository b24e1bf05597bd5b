"""What a study would cost, for every rank and for all together, without its weights."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from lorascope.costmodel.calibration import Calibration, find_calibration
from lorascope.costmodel.cost_types import CostPrediction, MemorySplit, ModelShape, Step, TrainingConfig
from lorascope.costmodel.machine import PlannedMachine, find_machine
from lorascope.costmodel.model import forward_seconds, predict, slot_bytes
from lorascope.costmodel.shapes import model_shape
from lorascope.costmodel.workload import assumed_rows, evaluation_of, steps_of
from lorascope.data.dataset import Example
from lorascope.data.row_order import total_steps
from lorascope.errors import InputError
from lorascope.message import Message
from lorascope.modeling.load import ModelSource, load_tokenizer
from lorascope.modeling.meta_model import empty_model, locate_configuration
from lorascope.modeling.targets import check_ranks, find_targets, swap_in
from lorascope.search.rounds import next_trials
from lorascope.search.steps import evaluation_steps
from lorascope.search.trials import plan_trials
from lorascope.spec.schema import FILE_SUFFIXES, StudySpec

if TYPE_CHECKING:
    from lorascope.analysis.verdict.limits import Limit

_SAMPLED_STEPS = 32
"""Steps whose rows are cut into passes to know the mean step and the largest pass."""
_JOINT_STEPS = 4
_READ_BYTES = 10_000_000
"""A larger file of rows is not tokenised for a plan."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedCost:
    """What training something costs."""

    trainable_parameters: int
    adapter_bytes: int
    flops_per_token: float
    bytes_per_step: float
    step_seconds: float
    runtime_seconds: float | None
    """All steps; None where the number of rows is not known."""
    peak_memory_bytes: int
    memory_split: MemorySplit
    fits: bool
    largest_batch: int
    """Rows of the mean length that can go through the model at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedRank:
    """A rank and what it costs alone."""

    rank: int
    cost: PlannedCost


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyPlan:
    """A whole study."""

    model: str
    base_parameters: int
    adapted_modules: int
    device: str
    device_memory_bytes: int
    dtype: str
    rows: str
    """Where the lengths of the rows are from."""
    tokens_per_step: float
    total_steps: int | None
    ranks: tuple[PlannedRank, ...]
    joint: PlannedCost
    """The first pack, with all its trials at once."""
    joint_trials: int
    full: PlannedCost
    """Full fine-tuning of the base, for comparison: float32 weights, gradients and AdamW."""
    training_seconds: float | None
    """All trials jointly, to their ends."""
    evaluation_seconds: float | None
    calibration: Calibration | None
    """The finished study that corrected times; None without one."""
    limits: tuple["Limit", ...]
    """What was given on memory, time and size."""
    notes: tuple[Message, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rows:
    train: tuple[Example, ...]
    eval: tuple[Example, ...]
    total_steps: int | None
    source: str


def plan_study(spec: StudySpec) -> StudyPlan:
    """Predict a study's costs from the model's configuration, and from its rows where they can be read quickly.

    Raises:
        InputError: the model's configuration, targets, ranks, device or rows cannot be used.
    """
    source, gguf_file = locate_configuration(spec.model, trust_remote_code=spec.trust_remote_code)
    model = empty_model(source, gguf_file)
    targets = find_targets(model, spec.target_modules)
    shape = model_shape(model, targets)
    notes = check_ranks(swap_in(model, targets), spec.ranks)
    place = find_machine(spec)
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    rows = _rows(spec, source, gguf_file, longest if isinstance(longest, int) and longest > 1 else spec.max_length)
    calibration = find_calibration(place.name, place.dtype, shape.parameters)
    if calibration is not None and not place.machine.overlaps:
        place = replace(place, rest_bytes=calibration.rest_bytes)
    planner = _Planner(spec=spec, shape=shape, place=place, rows=rows, calibration=calibration)
    plan = planner.plan(adapted_modules=len(targets), notes=notes)
    return planner.plan(adapted_modules=len(targets), notes=notes) if place.machine.settle() else plan


def _rows(spec: StudySpec, source: ModelSource, gguf_file: str | None, longest: int) -> _Rows:
    """Read the study's rows where they and a tokenizer are here, else assume rows of the largest length."""
    if not Path(spec.dataset).expanduser().exists() and Path(spec.dataset).suffix.lower() in FILE_SUFFIXES:
        from lorascope.data.sources.load import load_rows  # noqa: PLC0415 - imports the library of data sets: a second

        load_rows(spec.dataset, spec.split)  # says that there is no such file
    if Path(source.path).is_dir() and _is_small(spec.dataset):
        try:
            tokenizer = load_tokenizer(source, gguf_file)
        except InputError:
            tokenizer = None
        if tokenizer is not None:
            from lorascope.data.prepare import prepare  # noqa: PLC0415 - imports the library of data sets: a second

            splits = prepare(spec, tokenizer)
            steps = total_steps(spec, len(splits.train))
            return _Rows(train=splits.train, eval=splits.eval, total_steps=steps, source="the rows themselves")
    length = min(spec.max_length, longest)
    rows = assumed_rows(spec.per_device_train_batch_size * spec.gradient_accumulation_steps, length)
    return _Rows(
        train=rows,
        eval=assumed_rows(spec.eval_examples, length) if spec.eval_examples else (),
        total_steps=spec.max_steps,
        source=f"assumed: {length} tokens each",
    )


def _is_small(dataset: str) -> bool:
    path = Path(dataset).expanduser()
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) <= _READ_BYTES
    return dataset.startswith("builtin:") or (path.is_file() and path.stat().st_size <= _READ_BYTES)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Planner:
    """Everything that the predictions of one study share."""

    spec: StudySpec
    shape: ModelShape
    place: PlannedMachine
    rows: _Rows
    calibration: Calibration | None

    def plan(self, *, adapted_modules: int, notes: Sequence[Message]) -> StudyPlan:
        known = self.rows.total_steps or _SAMPLED_STEPS
        alone = self._steps(min(known, _SAMPLED_STEPS), adapters=1)
        group = [trial.rank for trial in next_trials(self.spec, [], {})]
        together = self._steps(min(known, _JOINT_STEPS), adapters=len(group))
        joint = self._cost(group, together, joint=len(group) > 1)
        ranks = tuple(PlannedRank(rank=rank, cost=self._cost([rank], alone)) for rank in sorted(self.spec.ranks))
        if any(more.cost.step_seconds < less.cost.step_seconds for less, more in pairwise(ranks)):
            notes = [*notes, Message("plan.odd_times")]
        training = joint.runtime_seconds
        if training is not None:
            training *= len(plan_trials(self.spec)) / len(group)
        return StudyPlan(
            model=self.spec.model,
            base_parameters=self.shape.parameters,
            adapted_modules=adapted_modules,
            device=self.place.name,
            device_memory_bytes=self.place.memory_bytes,
            dtype=self.place.dtype,
            rows=self.rows.source,
            tokens_per_step=sum(step.tokens for step in alone) / len(alone),
            total_steps=self.rows.total_steps,
            ranks=ranks,
            joint=joint,
            joint_trials=len(group),
            full=self._cost([], alone, full_finetuning_config(self.place.config)),
            training_seconds=training,
            evaluation_seconds=self._evaluation_seconds(),
            calibration=self.calibration,
            limits=self._limits(),
            notes=tuple(notes),
        )

    def _limits(self) -> tuple["Limit", ...]:
        if all(given is None for given in (self.spec.max_memory, self.spec.max_seconds, self.spec.max_adapter_mb)):
            return ()
        from lorascope.analysis.verdict.limits import limits_of  # noqa: PLC0415 - imports what reads studies: half a second

        return limits_of(self.spec)

    def _steps(self, n: int, *, adapters: int) -> tuple[Step, ...]:
        return steps_of(
            self.spec,
            self.rows.train,
            range(n),
            adapters=adapters,
            padded=not self.spec.packing,
            kernels=self.place.kernels,
        )

    def _factor(self, *, joint: bool = False) -> float:
        if self.calibration is None:
            return 1.0
        return self.calibration.joint_factor if joint else self.calibration.factor

    def _cost(
        self, ranks: Sequence[int], steps: Sequence[Step], config: TrainingConfig | None = None, *, joint: bool = False
    ) -> PlannedCost:
        config = config or self.place.config
        found = predict(self.shape, config, steps, ranks, self.place.machine, rest_bytes=self.place.rest_bytes)
        seconds = found.step_seconds * self._factor(joint=joint)
        n_steps = self.rows.total_steps
        return PlannedCost(
            trainable_parameters=found.trained_parameters,
            adapter_bytes=found.trained_parameters * config.weight_bytes,
            flops_per_token=found.step_flops * len(steps) / (max(1, len(ranks)) * sum(step.tokens for step in steps)),
            bytes_per_step=found.step_bytes,
            step_seconds=seconds,
            runtime_seconds=None if n_steps is None else seconds * n_steps,
            peak_memory_bytes=found.memory.total,
            memory_split=found.memory,
            fits=found.memory.total <= self.place.memory_bytes,
            largest_batch=self._largest_batch(found, config, ranks, steps),
        )

    def _largest_batch(
        self, found: CostPrediction, config: TrainingConfig, ranks: Sequence[int], steps: Sequence[Step]
    ) -> int:
        """Divide the memory that is left beside weights and states by what a row keeps."""
        n_rows = self.spec.per_device_train_batch_size * self.spec.gradient_accumulation_steps
        row_tokens = sum(step.tokens for step in steps) / len(steps) / n_rows
        left = self.place.memory_bytes - (found.memory.total - found.memory.activation)
        fixed, each = slot_bytes(self.shape, config, max(ranks, default=0))
        return max(0, int((left - fixed) / each / row_tokens))

    def _evaluation_seconds(self) -> float | None:
        n_steps, spec = self.rows.total_steps, self.spec
        if n_steps is None or not self.rows.eval:
            return None
        microbatches = evaluation_of(spec, self.rows.eval, padded=not spec.packing, kernels=self.place.kernels)
        once = [forward_seconds(self.shape, self.place.config, microbatches, trial.rank, self.place.machine)
                for trial in plan_trials(spec)]  # fmt: skip
        # before the first step all trials are the base, which is evaluated once
        return self._factor() * (sum(once) * (len(evaluation_steps(spec, n_steps)) - 1) + once[0])


def full_finetuning_config(lora: TrainingConfig) -> TrainingConfig:
    """Return full fine-tuning as people do it: float32 weights, gradients and AdamW, products as LoRA has them."""
    low = lora.dtype in {"bfloat16", "float16"}
    copied, moved = (2, 6) if low else (0, 0)
    return replace(
        lora,
        copy_bytes=copied,
        update_bytes=lora.update_bytes + moved,
        rounding_bytes=0,
        fused=False,
        trains_base=True,
    )

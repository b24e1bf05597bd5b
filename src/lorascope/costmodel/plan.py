"""Plan of a study: predicted cost of every rank, of joint training and of full fine-tuning. Loads no weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from lorascope.costmodel.calibration import Calibration, find_calibration
from lorascope.costmodel.cost_types import MemorySplit, ModelShape, PlannedCost, Step, TrainingConfig
from lorascope.costmodel.devices import find_device
from lorascope.costmodel.joint import add_seconds, joint_cost, joint_memory
from lorascope.costmodel.machine import PlannedMachine, find_machine
from lorascope.costmodel.model import activation_growth, forward_seconds, predict
from lorascope.costmodel.planned_layers import planned_sets
from lorascope.costmodel.shapes import model_shape
from lorascope.costmodel.training_config import full_finetuning_config
from lorascope.costmodel.workload import (
    PlannedRows,
    Workload,
    evaluation_microbatches,
    planned_rows,
    planned_workload,
    sample_steps,
)
from lorascope.data.forgetting_text import WINDOW_TOKENS, WINDOWS
from lorascope.message import Message
from lorascope.modeling.adapters.initialisation import saved_rank_note
from lorascope.modeling.adapters.modules_to_save import saved_module_notes, select_modules_to_save
from lorascope.modeling.load import check_source, read_config
from lorascope.modeling.meta_model import empty_model, locate_configuration
from lorascope.modeling.quantisation import planned_bits
from lorascope.modeling.target_selection import (
    join_sets,
    largest_share,
    layers_of_ranks,
    own_ranks,
    share_ranks,
)
from lorascope.modeling.targets import check_ranks, swap_in
from lorascope.search.analyses import truncation_ranks
from lorascope.search.rounds import next_trials
from lorascope.search.solo_runs import EFFORTS
from lorascope.search.steps import evaluation_steps
from lorascope.search.target_sets import studies_by_set
from lorascope.search.trials import plan_trials, saved_rank
from lorascope.search.work import answer_work
from lorascope.spec.fields.answer import NO_TEXT
from lorascope.spec.limits import Limit, limits_of
from lorascope.spec.schema import StudySpec

_SAMPLED_STEPS = 32
"""Steps whose micro-batches give the mean step and the largest micro-batch."""
_JOINT_STEPS = 4
START_SECONDS = 30.0
"""Roughly what imports, rows, weights and the checks of the model take before the first step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedRank:
    """A rank and its cost in a solo run."""

    targets: str
    """Name of its set of target modules; empty where the study has one."""
    rank: int
    saved_rank: int
    """Rank of the adapter's files."""
    cost: PlannedCost


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyPlan:
    """Predicted cost of a study."""

    model: str
    base_parameters: int
    adapted_modules: int
    device: str
    device_memory_bytes: int
    dtype: str
    rows: str
    """Source of the row lengths."""
    tokens_per_step: float
    total_steps: int | None
    ranks: tuple[PlannedRank, ...]
    joint: PlannedCost
    """The first trial group."""
    joint_trials: int
    full: PlannedCost
    """Full fine-tuning, for comparison: float32 weights, gradients and AdamW."""
    training_seconds: float | None
    """All trials trained jointly to the last step."""
    evaluation_seconds: float | None
    total_seconds: float | None
    """From start to report: training, evaluations, solo runs, analyses of adapters and ``START_SECONDS``."""
    workload: Workload | None
    """None if the number of rows is unknown."""
    calibration: Calibration | None
    """The calibration that scaled times; None without one."""
    limits: tuple[Limit, ...]
    """The study's limits on memory, time and size."""
    notes: tuple[Message, ...]


def plan_study(spec: StudySpec, choose_steps: Callable[[Workload], int] | None = None) -> StudyPlan:
    """Predict a study's costs from the model's configuration, and from its rows if they can be read quickly.

    Args:
        spec: the study.
        choose_steps: returns the steps of each trial; without it they are those of the epochs, or ``max_steps``.

    Raises:
        InputError: the model's configuration, targets, ranks, device or rows cannot be used.
    """
    source, gguf_file = locate_configuration(spec.model, trust_remote_code=spec.trust_remote_code)
    model = empty_model(source, gguf_file)
    if not gguf_file:  # a device of the catalogue is another machine, with packages of its own
        check_source(replace(source, quantize=spec.quantize), spec.model, here=find_device(spec.device) is None)
    sets, notes = planned_sets(model, spec)
    layers = swap_in(model, join_sets(model, sets))
    whole = select_modules_to_save(model, spec.modules_to_save)
    notes += saved_module_notes(model, whole) + share_ranks(model, layers, spec)
    bits, share = None if gguf_file else planned_bits(read_config(source), spec.quantize), largest_share(layers)
    shapes = {
        name: replace(model_shape(model, own, own_ranks(own, spec), whole, share), weight_bits=bits)
        for name, own in sets.items()
    }
    for own in sets.values():
        notes += check_ranks(layers_of_ranks({name: layers[name] for name in own}, spec), spec.ranks)
    machine = find_machine(spec)
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    rows = planned_rows(
        spec, source, gguf_file, longest if isinstance(longest, int) and longest > 1 else spec.max_length
    )
    calibration = find_calibration(machine.name, machine.dtype, next(iter(shapes.values())).parameters)
    if calibration is not None and not machine.hardware.overlaps:
        machine = replace(machine, rest_bytes=calibration.rest_bytes)
    planners = [
        _Planner(targets=name, spec=own, shape=shapes[name], machine=machine, rows=rows, calibration=calibration)
        for name, own in studies_by_set(spec).items()
    ]

    shares = {
        name: sum(sum(layers[layer].features) for layer in own) / shapes[name].parameters for name, own in sets.items()
    }

    def plan(rows: PlannedRows) -> StudyPlan:
        joined = _join_plans([replace(planner, rows=rows) for planner in planners])
        said = (*dict.fromkeys(notes), *saved_rank_note(spec), *joined.notes)
        work = planners[0].workload(joined.ranks[len(spec.ranks) - 1], shares)
        return replace(joined, adapted_modules=len(layers), notes=said, workload=work)

    found = plan(rows)
    if machine.hardware.refine():
        found = plan(rows)
    if choose_steps is None or found.workload is None:
        return found
    return plan(replace(rows, total_steps=choose_steps(found.workload)))


def _join_plans(planners: "Sequence[_Planner]") -> StudyPlan:
    """Plan sets of target modules: their ranks are listed, and their groups train together over one base."""
    plans = [planner.plan() for planner in planners]
    memory = joint_memory([plan.joint.memory_split for plan in plans])
    return replace(
        plans[0],
        ranks=tuple(part for plan in plans for part in plan.ranks),
        joint=joint_cost(
            [plan.joint for plan in plans],
            trials=[plan.joint_trials for plan in plans],
            memory=memory,
            fits=memory.total_bytes <= plans[0].device_memory_bytes,
            largest_batch=min(planner.joint_batch(memory) for planner in planners),
        ),
        joint_trials=sum(plan.joint_trials for plan in plans),
        training_seconds=add_seconds([plan.training_seconds for plan in plans]),
        evaluation_seconds=add_seconds([plan.evaluation_seconds for plan in plans]),
        total_seconds=add_seconds([plan.total_seconds for plan in plans], less=(len(plans) - 1) * START_SECONDS),
        notes=tuple(dict.fromkeys(note for plan in plans for note in plan.notes)),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Planner:
    """Inputs shared by all predictions of one set of target modules."""

    targets: str
    spec: StudySpec
    shape: ModelShape
    machine: PlannedMachine
    rows: PlannedRows
    calibration: Calibration | None

    def plan(self) -> StudyPlan:
        known = self.rows.total_steps or _SAMPLED_STEPS
        solo = self._steps(min(known, _SAMPLED_STEPS), adapters=1)
        group = self._group()
        joint = self._cost(group, self._joint_steps(), joint=len(group) > 1)
        ranks = tuple(
            PlannedRank(
                targets=self.targets, rank=rank, saved_rank=saved_rank(self.spec, rank), cost=self._cost([rank], solo)
            )
            for rank in sorted(self.spec.ranks)
        )
        notes: list[Message] = []
        if any(more.cost.step_seconds < less.cost.step_seconds for less, more in pairwise(ranks)):
            notes.append(Message("plan.odd_times"))
        training = joint.runtime_seconds
        if training is not None:
            training *= len(plan_trials(self.spec)) / len(group)
        evaluating = self._evaluation_seconds()
        return StudyPlan(
            model=self.spec.model,
            base_parameters=self.shape.parameters,
            adapted_modules=0,
            device=self.machine.name,
            device_memory_bytes=self.machine.memory_bytes,
            dtype=self.machine.dtype,
            rows=self.rows.source,
            tokens_per_step=sum(step.tokens for step in solo) / len(solo),
            total_steps=self.rows.total_steps,
            ranks=ranks,
            joint=joint,
            joint_trials=len(group),
            full=self._cost([], solo, full_finetuning_config(self.machine.config)),
            training_seconds=training,
            evaluation_seconds=evaluating,
            total_seconds=None if training is None else training + (evaluating or 0.0) + self._other_seconds(ranks),
            workload=None,
            calibration=self.calibration,
            limits=limits_of(self.spec),
            notes=tuple(notes),
        )

    def joint_batch(self, memory: MemorySplit) -> int:
        """Return the rows of this set's first trial group that fit in one micro-batch, in this memory of all sets."""
        return self._largest_batch(memory, self.machine.config, self._group(), self._joint_steps())

    def _group(self) -> list[int]:
        """Return the ranks of the first trial group."""
        return [trial.rank for trial in next_trials(self.spec, [], {})]

    def _joint_steps(self) -> tuple[Step, ...]:
        n = min(self.rows.total_steps or _JOINT_STEPS, _JOINT_STEPS)
        return self._steps(n, adapters=len(self._group()))

    def workload(self, largest: PlannedRank, shares: Mapping[str, float]) -> Workload | None:
        """Return the work of all sets and its pace, which is that of the largest rank; None for unknown rows."""
        rows = self.rows
        if rows.total_steps is None or not rows.eval:
            return None
        steps = self._steps(min(rows.total_steps, _SAMPLED_STEPS), adapters=1)
        return planned_workload(
            rows,
            steps,
            (self.targets, largest.rank),
            step_seconds=largest.cost.step_seconds,
            evaluation_seconds=self._one_evaluation(largest.rank),
            shares=shares,
        )

    def _steps(self, n: int, *, adapters: int) -> tuple[Step, ...]:
        padded, kernels = not self.spec.packing, self.machine.kernels
        return sample_steps(self.spec, self.rows.train, range(n), adapters=adapters, padded=padded, kernels=kernels)

    def _factor(self, *, joint: bool = False) -> float:
        if self.calibration is None:
            return 1.0
        return self.calibration.joint_factor if joint else self.calibration.factor

    def _cost(
        self, ranks: Sequence[int], steps: Sequence[Step], config: TrainingConfig | None = None, *, joint: bool = False
    ) -> PlannedCost:
        config = config or self.machine.config
        found = predict(self.shape, config, steps, ranks, self.machine.hardware, rest_bytes=self.machine.rest_bytes)
        memory = found.memory
        seconds = found.step_seconds * self._factor(joint=joint)
        n_steps, trained = self.rows.total_steps, found.trained_parameters
        whole = self.shape.whole_parameters * len(ranks)
        n_saved = trained if config.trains_base else (trained - whole) * saved_rank(self.spec, 1) + whole
        return PlannedCost(
            trainable_parameters=trained,
            adapter_bytes=n_saved * config.weight_bytes,
            flops_per_token=found.step_flops * len(steps) / (max(1, len(ranks)) * sum(step.tokens for step in steps)),
            bytes_per_step=found.step_bytes,
            step_seconds=seconds,
            runtime_seconds=None if n_steps is None else seconds * n_steps,
            peak_memory_bytes=memory.total_bytes,
            memory_split=memory,
            fits=memory.total_bytes <= self.machine.memory_bytes,
            largest_batch=self._largest_batch(memory, config, ranks, steps),
        )

    def _largest_batch(
        self, memory: MemorySplit, config: TrainingConfig, ranks: Sequence[int], steps: Sequence[Step]
    ) -> int:
        """Divide the memory left by weights and optimizer states by the activations of a row."""
        n_rows = self.spec.per_device_train_batch_size * self.spec.gradient_accumulation_steps
        row_tokens = sum(step.tokens for step in steps) / len(steps) / n_rows
        left = self.machine.memory_bytes - (memory.total_bytes - memory.activation_bytes)
        fixed, each = activation_growth(self.shape, config, max(ranks, default=0))
        return max(0, int((left - fixed) / each / row_tokens))

    def _evaluation_seconds(self) -> float | None:
        n_steps, spec = self.rows.total_steps, self.spec
        if n_steps is None or not self.rows.eval:
            return None
        once = [self._one_evaluation(trial.rank) for trial in plan_trials(spec)]
        # before the first step all trials equal the base, which is evaluated once
        return sum(once) * (len(evaluation_steps(spec, n_steps)) - 1) + once[0]

    def _one_evaluation(self, rank: int) -> float:
        """Predict one evaluation of the held-out rows."""
        microbatches = evaluation_microbatches(
            self.spec, self.rows.eval, padded=not self.spec.packing, kernels=self.machine.kernels
        )
        seconds = forward_seconds(self.shape, self.machine.config, microbatches, rank, self.machine.hardware)
        return self._factor() * seconds

    def _other_seconds(self, ranks: Sequence[PlannedRank]) -> float:
        """Predict start, solo runs, answers, and evaluations of truncated adapters and of the forgetting text."""
        spec, effort, top = self.spec, EFFORTS[self.spec.cost], max(self.spec.ranks)
        seconds = START_SECONDS + effort.repeats * (1 + effort.steps) * sum(part.cost.step_seconds for part in ranks)
        if not self.rows.eval:
            return seconds
        evaluation = self._one_evaluation(top)
        if spec.truncation:
            seconds += evaluation * len(truncation_ranks(top, spec.ranks))
        if spec.forgetting_text != NO_TEXT:
            share = WINDOWS * WINDOW_TOKENS / sum(row.n_tokens for row in self.rows.eval)
            seconds += evaluation * share * (1 + len(spec.ranks))
        tokens, n_rows = sum(row.n_tokens for row in self.rows.eval), len(self.rows.eval)
        answers = min(spec.samples, n_rows) * answer_work(spec, tokens / n_rows, [1.0] * (1 + len(spec.ranks)))
        if spec.scored_metrics:
            answering = 1 + len(spec.ranks) * len(spec.seeds)
            answers += n_rows * answer_work(spec, tokens / n_rows, [1.0] * answering)
        return seconds + evaluation * answers / tokens

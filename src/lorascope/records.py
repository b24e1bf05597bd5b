"""Frozen records: the only things that cross the border between what trains and what reads.

Units are part of each name. Losses are sums of nats beside the tokens summed over, and divided where they are read.
"""

import math
from typing import Annotated, Literal

from lorascope.answer_records import HARNESS as HARNESS  # noqa: PLC0414
from lorascope.answer_records import HarnessTask as HarnessTask  # noqa: PLC0414
from lorascope.answer_records import SampleAnswer as SampleAnswer  # noqa: PLC0414  # they are records, too
from lorascope.answer_records import SamplePrompt as SamplePrompt  # noqa: PLC0414
from lorascope.answer_records import ScoreRecord as ScoreRecord  # noqa: PLC0414
from lorascope.cost_records import MachineRates as MachineRates  # noqa: PLC0414
from lorascope.cost_records import PredictedThing as PredictedThing  # noqa: PLC0414
from lorascope.cost_records import PredictionRecord as PredictionRecord  # noqa: PLC0414
from lorascope.cost_records import SoloRun as SoloRun  # noqa: PLC0414
from lorascope.look_records import GOES_ON as GOES_ON  # noqa: PLC0414
from lorascope.look_records import BudgetRecord as BudgetRecord  # noqa: PLC0414
from lorascope.look_records import FurtherEvalRecord as FurtherEvalRecord  # noqa: PLC0414
from lorascope.look_records import LookRecord as LookRecord  # noqa: PLC0414
from lorascope.message import Message
from lorascope.record_registry import record
from lorascope.sample_records import GpuSample as GpuSample  # noqa: PLC0414
from lorascope.sample_records import SystemSample as SystemSample  # noqa: PLC0414
from lorascope.shown_row import ShownRow as ShownRow  # noqa: PLC0414  # one of the records
from lorascope.units import DTYPE_BYTES

OutcomeState = Literal["running", "finished", "stopped", "diverged", "oom", "failed"]
"""``stopped``: its learning rate fell behind and left early, as planned."""
AS_PLANNED = frozenset({"finished", "stopped"})
"""States in which a trial ended as planned."""
UNSUCCESSFUL = frozenset({"diverged", "oom", "failed"})
"""States in which a trial ended, but not as planned."""
SETTLED = AS_PLANNED | {"diverged"}
"""States in which a trial is not trained again; the next run trains a trial again that failed or ran out of memory."""
NOT_COMPARED = UNSUCCESSFUL | {"stopped"}
"""States in which a trial's losses are not compared with those of other ranks."""
Arm = tuple[str, int]
"""``(targets, rank)``: a set of target modules by its name, and a rank."""
Setting = tuple[float, float]
"""``(lora_alpha, learning_rate)``."""
TokenCounts = Annotated[tuple[int, ...], "int32"]
"""Tokens of each row; the store keeps four bytes for each."""


@record("trials", key=("trial_id",), ordered=True)
class TrialRecord:
    """One adapter's training, as planned."""

    trial_id: str
    """Unique and safe as a folder name: ``r128``, or ``r128-lr0.0003-s1`` where an axis has several values; the first
    seed has no part in it."""
    rank: int
    lora_alpha: float
    scale: float
    """What the update B A x is multiplied by: ``lora_alpha / r``, or ``lora_alpha / sqrt(r)`` for rsLoRA."""
    learning_rate: float
    seed: int
    targets: str = ""
    """Name of its set of target modules; empty where the study has one."""

    @property
    def arm(self) -> Arm:
        """Set of target modules and rank: trials of one arm are compared with each other first."""
        return self.targets, self.rank

    @property
    def setting(self) -> Setting:
        """Alpha and learning rate, which are tuned for each rank."""
        return self.lora_alpha, self.learning_rate


@record("steps", key=("trial_id", "step"))
class StepRecord:
    """One optimizer step of one trial."""

    trial_id: str
    step: int
    """Counted from 1: the record of step n is the loss before the n-th update."""
    nats: float
    """Sum of the cross entropy over the batch's target tokens."""
    target_tokens: int
    """Tokens the loss was taken on."""
    tokens: int
    """Tokens that went through the model, targets or not, padding left out."""
    learning_rate: float
    grad_norm: float
    """Norm of the mean-loss gradient before clipping."""
    seconds: float
    """Wall time of the group's step; the time of a rank alone is in ``SoloRun``."""
    warmup: bool
    """True for the first steps of a process, which no average includes."""
    group: int
    """Place in the plan, from 0, of the first trial of its group: trials with equal step and group took it together."""


@record("evaluations", key=("trial_id", "step"))
class EvalRecord:
    """Held-out loss of one trial after a number of steps, kept for every example."""

    trial_id: str
    step: int
    example_nats: tuple[float, ...]
    example_target_tokens: TokenCounts
    seconds: float
    example_correct_tokens: TokenCounts | None = None
    """Target tokens that were the likeliest one; counted at the first and the last step."""

    @property
    def loss(self) -> float | None:
        """Divide the nats by the target tokens; None where that is not finite."""
        tokens = sum(self.example_target_tokens)
        return math.fsum(self.example_nats) / tokens if tokens and all(map(math.isfinite, self.example_nats)) else None


@record("adapters", key=("targets", "rank"))
class AdapterRecord:
    """Exact size of one rank's adapter, from its tensors."""

    rank: int
    trainable_parameters: int
    parameter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    saved_rank: int
    """Rank of the files: twice the trained one where initial values come from the base."""
    saved_bytes: int
    """Of the tensors in the files."""
    targets: str = ""
    """Name of its set of target modules; empty where the study has one."""


@record("outcomes", key=("trial_id",))
class TrialOutcome:
    """How a trial stands or ended."""

    trial_id: str
    state: OutcomeState
    steps: int
    """Optimizer steps done."""
    message: Message | None
    """Why, for the states that need a reason."""


@record("resolved", key=())
class ResolvedStudy:
    """What the study was in the end, after every default and automatic choice."""

    model: str
    dataset: str
    device: str
    dtype: str
    dtype_reason: Message
    packing: bool
    """True: rows are packed without padding. False: rows are padded."""
    packing_reason: Message
    train_examples: int
    eval_examples: int
    train_tokens: int
    """Tokens of one epoch of the training rows."""
    train_target_tokens: int
    eval_target_tokens: int
    total_steps: int
    base_parameters: int
    """Those of packed weights included."""
    target_modules: tuple[str, ...]
    data_hash: str
    model_hash: str
    data_notes: tuple[Message, ...]
    """What was done to the rows: truncated, dropped, duplicates."""
    kernels: bool
    kernels_reason: Message
    eval_tokens: int | None
    """Tokens of the held-out rows, targets or not; None where the version that wrote this did not count them."""
    base_bytes: int | None = None
    """Of the base's weights; None where all are of the study's precision."""
    eval_target_bytes: int | None = None
    """Of the text of the held-out target tokens; None where the version that wrote this did not count them."""

    @property
    def weight_bytes(self) -> int:
        """Return the bytes of the base's weights. Raises KeyError for a precision that is not known."""
        return DTYPE_BYTES[self.dtype] * self.base_parameters if self.base_bytes is None else self.base_bytes


@record("target_sets", key=("name",), ordered=True)
class TargetSet:
    """One of several sets of target modules."""

    name: str
    layers: tuple[str, ...]
    """Full names of the adapted layers."""


@record("environments")
class Environment:
    """Where numbers came from."""

    started: str
    """ISO 8601 with time zone."""
    lorascope_version: str
    commit: str | None
    """Commit of the working tree lorascope was run from, ``-dirty`` appended where it had changes; None outside one."""
    python: str
    packages: dict[str, str]
    os: str
    cpu: str
    cpu_cores: int
    memory_bytes: int
    device: str
    device_name: str
    threads: int
    seeds: tuple[int, ...]
    command: str


@record("spectra", key=("trial_id", "layer"), ordered=True)
class SpectrumRecord:
    """What one trained adapter does in one layer."""

    trial_id: str
    layer: str
    """Full name of the adapted module."""
    singular_values: tuple[float, ...]
    """Of scale * B A, descending: as many as the rank, or as the layer's smaller side where that is less."""


@record("truncations", key=("trial_id", "rank"))
class TruncationRecord:
    """Held-out loss of a trained adapter cut to a smaller rank, kept for every example."""

    trial_id: str
    """The trial whose adapter was cut."""
    rank: int
    """The rank it was cut to."""
    example_nats: tuple[float, ...]
    example_target_tokens: TokenCounts
    seconds: float


@record("peft_checks", key=("trial_id",))
class PeftCheck:
    """What PEFT made of a trial's adapter files over the same base, on a few held-out rows, one at a time."""

    trial_id: str
    rows: TokenCounts
    base_nats: tuple[float, ...]
    """Without an adapter: what differs from the evaluation is rounding."""
    nats: tuple[float, ...]
    layers_left_out: int
    error: Message | None
    """Why PEFT loaded nothing."""


BASE_MODEL = ""
"""Stands for the base model where a trial is named."""


@record("forgetting", key=("trial_id",))
class ForgettingRecord:
    """Loss on a text that has nothing to do with the rows, kept for every window of it."""

    trial_id: str
    """The trial whose adapter was evaluated, or ``BASE_MODEL``."""
    text: str
    """The text as the study names it."""
    text_hash: str
    """SHA-256 of the windows' tokens: only records of equal hash can be compared."""
    window_nats: tuple[float, ...]
    window_target_tokens: TokenCounts
    seconds: float


@record("activities", key=("name",))
class ActivityRecord:
    """Time of one kind of work in a study, such as training, over all of its runs."""

    name: str
    predicted_seconds: float | None
    """All of it, as predicted when its pace was first known; None where it was not."""
    spent_seconds: float
    seconds_left: float | None
    """What is expected to follow; None where its pace is not known."""


@record("progress", key=())
class ProgressRecord:
    """How far a run is."""

    share_done: float
    """Time spent, as a share of that and the time left."""
    seconds_left: float
    """Expected time until the report is there."""

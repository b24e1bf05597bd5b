"""Shape of summary.json, whose sentences are messages; docs/summary.md is made from it. A missing number is null."""

from collections.abc import Iterable
from typing import Literal, TypeVar

from lorascope.analysis.adapters.schema import ForgettingSection, GenericTextSection, SpectrumSection, TruncationSection
from lorascope.analysis.cost.predicted_schema import PredictedSection
from lorascope.analysis.cost.schema import ActivitySection, CostSection, CostsSection, GpuSection
from lorascope.analysis.looks import LookSection
from lorascope.analysis.metrics.schema import MetricSection
from lorascope.analysis.readings_schema import GridSection, ReadingsSection
from lorascope.analysis.section import Interval, Section
from lorascope.analysis.settings_schema import BudgetSection, EnvironmentSection, SettingsSection
from lorascope.analysis.verdict.schema import AnswerSection, CautionSection, RecommendationSection, VerdictSection
from lorascope.message import Message, Sentences

TrialState = Literal["not_started", "running", "finished", "stopped", "diverged", "oom", "failed"]


class StudyInfo(Section):
    """Model, rows and settings of the study."""

    model: str
    """Base model."""
    dataset: str
    """Rows."""
    train_examples: int | None
    """Rows trained on."""
    eval_examples: int | None
    """Rows held out."""
    tokens: int | None
    """Tokens of one pass over the training rows, prompts included, padding left out."""
    eval_target_tokens: int | None
    """Held-out tokens the loss is taken on."""
    eval_target_bytes: int | None = None
    """Bytes of their text."""
    base_bits_per_byte: float | None = None
    """Held-out loss before the first step, in bits a byte."""
    device: str | None
    """Where it ran."""
    dtype: str | None
    """Precision of the frozen base."""
    dtype_reason: Message | None
    """Why that precision."""
    packing: bool | None
    """True when rows were packed without padding."""
    packing_reason: Message | None
    """Why rows were packed or padded."""
    kernels: bool | None
    """True when compiled kernels computed the steps."""
    kernels_reason: Message | None
    """Why they did or did not."""
    data_notes: tuple[Message, ...]
    """Notes on how the rows were read, cut, dropped and split, one sentence each."""
    data_hash: str | None
    """Hash of the rows."""
    model_hash: str | None
    """Hash of the base weights."""
    targets: str
    """Name of the set of target modules that the numbers are of; empty where the study has one."""
    adapted_modules: int | None
    """Layers with an adapter."""
    base_parameters: int | None
    """Parameters of the frozen base."""
    total_steps: int | None
    """Optimizer steps of a whole trial."""
    alpha_rule: str
    """How alpha follows the rank."""
    learning_rates: tuple[float, ...]
    """Learning rates that were tried, those of all ranks together."""
    seeds: tuple[int, ...]
    """Seeds that were run."""
    tolerance: float
    """Nats a token by which an adequate rank may exceed the best one."""
    complete: bool
    """True when every trial has ended."""
    convergence_band: float
    """How close to its final level a stable training loss stays, as a share of that level."""
    max_memory_bytes: int | None
    """Most memory that training a recommended rank may take."""
    max_seconds: float | None
    """Most time that training a recommended rank alone may take."""
    max_adapter_bytes: float | None
    """Most bytes that a recommended rank's adapter may take."""

    @property
    def limited(self) -> bool:
        """Return True if any limit was given."""
        return any(most is not None for most in (self.max_memory_bytes, self.max_seconds, self.max_adapter_bytes))

    budget: BudgetSection | None
    """Tokens that the search for learning rates took; null before a trial has finished."""


class TrialSection(Section):
    """One trial."""

    trial_id: str
    """The trial's name."""
    targets: str
    """Name of its set of target modules; empty where the study has one."""
    rank: int
    """LoRA rank r."""
    lora_alpha: float
    """LoRA alpha."""
    learning_rate: float
    """Peak learning rate."""
    seed: int
    """Seed of the initial adapter, dropout and row order."""
    outcome: TrialState
    """State, or how it ended."""
    message: Sentences
    """Why it ended so, where that needs a reason."""
    steps: int
    """Optimizer steps done."""
    train_loss: float | None
    """Training loss at the end of the trial, or its last finite one."""
    eval_loss: float | None
    """Held-out loss at the last finite evaluation after training began."""
    eval_step: int | None
    """Step of that evaluation."""
    base_eval_loss: float | None
    """Held-out loss before the first step: the base model's."""


WithAlpha = TypeVar("WithAlpha", TrialSection, GridSection)


class MemorySection(Section):
    """Memory sampled while the rank trained alone, in MB (10^6 bytes)."""

    mean: float
    """Mean of the readings."""
    std: float
    """Their standard deviation (of all readings, not a sample's estimate)."""
    min: float
    """The lowest."""
    max: float
    """The highest."""
    start_spike: float | None = None
    """How far the warm-up rises above the steps behind it; null where it does not stand out."""
    later_mean: float | None = None
    """Mean of the readings in the measured steps."""
    later_std: float | None = None
    """Their standard deviation."""


class RankSection(Section):
    """One rank at its best alpha and learning rate."""

    rank: int
    """LoRA rank r."""
    lora_alpha: float | None
    """LoRA alpha; of several that were tried, the one of the lowest held-out loss, together with the learning rate."""
    best_learning_rate: float | None
    """The learning rate with the lowest held-out loss, mean over seeds."""
    seeds: int
    """Trials the losses are means of."""
    eval_loss: float | None
    """Held-out loss, mean over seeds."""
    bits_per_byte: float | None = None
    """The same in bits a byte of text, which losses under another tokenizer can be compared with."""
    eval_loss_ci95: Interval | None
    """Its 95% interval over held-out rows and, with several seeds, over seeds."""
    token_accuracy: float | None = None
    """Share of held-out target tokens that were the likeliest token, mean over seeds."""
    token_accuracy_ci95: Interval | None = None
    """Its 95% interval over held-out rows and, with several seeds, over seeds."""
    excess_loss: float | None
    """Held-out loss above the best rank's."""
    excess_loss_ci95: Interval | None
    """Its 95% interval, paired by held-out row and by seed, over rows and the verdict's ``seeds``."""
    train_loss: float | None
    """Training loss at the end, mean over seeds."""
    trainable_parameters: int | None
    """Trained parameters of the adapter."""
    target_tokens_per_parameter: float | None = None
    """Target tokens of the training rows, each counted once, divided by them."""
    saved_rank: int | None
    """Rank of the adapter's files: twice the trained one where initial values come from the base's weights."""
    adapter_bytes: int | None
    """Bytes of the parameters in the adapter's files."""
    training_state_bytes: int | None
    """Bytes of the trained parameters, their gradient and the optimizer's state."""
    step_seconds: float | None
    """Time of one step, trained alone."""
    runtime_seconds: float | None
    """Steps of a whole trial x ``step_seconds``: predicted for the rank alone, without evaluations."""
    tokens_per_second: float | None
    """Tokens through the model in a second, trained alone."""
    peak_memory_bytes: int | None
    """Highest memory in its steps, trained alone; an evaluation's is under ``cost``."""
    memory: MemorySection | None
    """Memory over time, trained alone."""
    gpu: GpuSection | None = None
    """The GPU while it trained alone; null without one."""
    scale: float | None = None
    """Factor of the update B A x, from alpha and the rank."""
    pareto: bool | None = None
    """True where no other rank is as good in loss, time of a step and peak memory and better in one of them."""
    forgetting: ForgettingSection | None = None
    """Change of its loss on the generic text."""
    learning_rates: tuple[float, ...] = ()
    """Learning rates that were tried for this rank at this alpha, ascending."""
    added_learning_rates: tuple[float, ...] = ()
    """Those of them that were added because the best one lay at the edge of the grid."""
    lora_alphas: tuple[float, ...] = ()
    """Alphas that were tried for this rank, ascending."""
    cost: CostSection | None = None
    """How that was measured, and what it was made of; null where it was not measured in turns."""


class SetSummary(Section):
    """All that report, page and command line show of a study with one set of target modules."""

    schema_version: Literal[1] = 1
    """Grows when a field changes its meaning or goes away."""
    study: StudyInfo
    """Model, rows and settings of the study."""
    settings: SettingsSection
    """What all trials have in common."""
    trials: tuple[TrialSection, ...]
    """Every trial, in the order of the plan."""
    ranks: tuple[RankSection, ...]
    """Every rank, ascending."""
    base_eval_loss: float | None
    """The base model's held-out loss on the rows that the ranks are compared on; null unless all were evaluated."""
    answer: AnswerSection
    """The study's answer, in one word and one sentence."""
    recommendation: RecommendationSection
    """Which rank to use."""
    verdict: VerdictSection
    """The conclusion that the data supports."""
    cautions: tuple[CautionSection, ...]
    """Reasons to read the numbers with care, the weightiest first."""
    environment: EnvironmentSection | None
    """Machine, versions and command of the run."""
    readings: ReadingsSection
    """Further findings from the losses and sizes."""
    spectra: tuple[SpectrumSection, ...] = ()
    """How much of each rank was used, by kind of module."""
    truncation: TruncationSection | None = None
    """Losses of the largest rank's adapter, truncated to lower ranks."""
    generic_text: GenericTextSection | None = None
    """The text behind the losses under ``forgetting``."""
    predicted: PredictedSection | None = None
    """Predictions made before any measurement, compared with the measurements."""
    costs: CostsSection | None = None
    """Costs of the ranks compared with each other, and of the whole run."""
    metrics: tuple[MetricSection, ...] = ()
    """Metrics per held-out row beside the loss: token accuracy, and those that the study names."""
    looks: tuple[LookSection, ...] = ()
    """Looks of a sequential study, in order."""

    @property
    def compared_rows(self) -> int | None:
        """Return the held-out rows that the ranks are compared on."""
        return self.looks[-1].rows if self.looks else self.study.eval_examples

    def at_best_alpha(self, found: Iterable[WithAlpha]) -> list[WithAlpha]:
        """Return the trials or cells of the grid that are at the alpha of their rank's lowest loss."""
        best = {part.rank: part.lora_alpha for part in self.ranks}
        return [one for one in found if one.lora_alpha == best[one.rank]]


class SetComparisonSection(Section):
    """A rank of one set of target modules compared with a rank of another, on the same rows and seeds."""

    equal_parameters: bool
    """True: the two are nearest in parameters. False: each is the one that its set's recommendation names."""
    first: str
    """Name of a set."""
    first_rank: int
    """Its rank."""
    first_parameters: int | None
    """Parameters of its adapter."""
    second: str
    """Name of the other set."""
    second_rank: int
    """Its rank."""
    second_parameters: int | None
    """Parameters of its adapter."""
    difference: float
    """Held-out loss of the first minus that of the second."""
    difference_ci95: Interval
    """Its 95% interval, paired by held-out row and by seed; wider for the choice of these two ranks."""
    p: float
    """Of the claim that they differ, corrected over all pairs of ranks of two sets (Holm)."""


class TargetSetSection(Section):
    """One of several sets of target modules."""

    name: str
    """Name of the set: its words."""
    summary: SetSummary
    """The study of this set alone."""


class TargetSetsSection(Section):
    """Sets of target modules compared with each other."""

    use: str
    """Name of the set to use, which the rest of the summary is about; the first one before sets can be compared."""
    reason: Message
    """Why."""
    near: float
    """Largest ratio of the parameters of two ranks that are compared as equal in size."""
    seeds: int
    """Seeds behind the differences; with 1 they cover held-out rows only. 0 before sets can be compared."""
    sets: tuple[TargetSetSection, ...]
    """Every set, in the order of the study."""
    comparisons: tuple[SetComparisonSection, ...]
    """Ranks of every two sets: those of equal parameters, then those recommended. Empty before they can be compared."""


class StudySummary(SetSummary):
    """All that report, page and command line show of a study; of several sets of target modules, of the one to use."""

    target_sets: TargetSetsSection | None = None
    """Sets of target modules compared; null where the study has one."""
    time_book: tuple[ActivitySection, ...] = ()
    """Where the time went, in the order of a run; the report is not in it."""

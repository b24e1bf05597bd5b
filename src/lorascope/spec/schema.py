"""Schema of a study: one frozen object, validated once at the edge and passed whole.

Names of PEFT, Transformers and TRL keep their meaning. The text under a field is its only documentation: ``--help`` and
the reference page are generated from it.
"""

from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from lorascope.units import parse_bytes

AlphaRule = Literal["fixed", "rslora", "proportional"]
DatasetFormat = Literal["auto", "alpaca", "prompt_completion", "messages", "text", "template"]
Scheduler = Literal["constant", "linear", "cosine"]
Cost = Literal["off", "quick", "full"]
Dtype = Literal["auto", "float32", "bfloat16", "float64"]
BUILTIN_TEXT = "builtin:python-reference"
NO_TEXT = "none"

Values = TypeVar("Values", tuple[int, ...], tuple[float, ...])


def _no_duplicates(values: Values) -> Values:
    repeated = sorted({value for value in values if values.count(value) > 1})
    if repeated:
        raise PydanticCustomError("duplicate", "{repeated} given more than once", {"repeated": str(repeated)})
    return values


def _is_size(value: object) -> object:
    try:
        n_bytes = parse_bytes(value) if isinstance(value, str) else None
    except ValueError:
        n_bytes = None
    if not n_bytes:
        raise PydanticCustomError("size", "a size is a number above 0 with its unit", {})
    return value


Count = Annotated[int, Field(ge=1, strict=True)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonEmpty = Annotated[str, Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
Size = Annotated[str, BeforeValidator(_is_size)]

FILE_SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
"""Suffixes of data files."""

ANALYSIS_FIELDS = frozenset({"tolerance", "convergence_band", "max_memory", "max_seconds", "max_adapter_mb", "cost"})
"""Fields that change analysis or measurement but no training; a finished study accepts new values."""


class StudySpec(BaseModel):
    """Everything that a study depends on; equal specs give equal results on one machine."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: NonEmpty = "builtin:smollm2-135m"
    """Base model: a hub id, a folder, a GGUF file, or ``builtin:smollm2-135m``."""

    dataset: NonEmpty = "builtin:python-stdlib"
    """Rows: a hub id, a file (.json, .jsonl, .csv, .parquet), a saved ``datasets`` folder, or
    ``builtin:python-stdlib``."""

    split: NonEmpty = "train"
    """Rows to use, in the split syntax of ``datasets``: ``train``, ``train[:50%]``, ``train[100:200]``."""

    eval_split: str | None = None
    """Split of held-out rows. Default: rows of ``split``, chosen by ``split_seed``."""

    eval_examples: Annotated[int, Field(ge=2, strict=True)] | None = None
    """Number of held-out rows, at least two. Default: a tenth of the rows, at most 256."""

    dataset_format: DatasetFormat = "auto"
    """Format of the rows. ``auto`` detects it by column names."""

    prompt_template: str | None = None
    """Prompt template over the columns, such as ``### Question: {instruction}\\n ### Answer: ``; implies the format
    ``template``."""

    completion_template: str | None = None
    """Completion template over the columns, such as ``{output}``; implies the format ``template``."""

    completion_only_loss: bool | None = None
    """Take the loss on the completion only. Default: true if the format has a completion."""

    max_length: Annotated[int, Field(ge=2, strict=True)] = 1024
    """Rows are truncated to this many tokens."""

    split_seed: Seed = 0
    """Seed of the held-out rows. Training rows are shuffled by each trial's own seed."""

    ranks: Annotated[tuple[Count, ...], Field(min_length=1), AfterValidator(_no_duplicates)] = (8, 128, 256)
    """LoRA ranks to compare."""

    alpha_rule: AlphaRule = "fixed"
    """How alpha and the scale follow the rank r: ``fixed`` (same alpha, scale alpha/r), ``rslora`` (same alpha, scale
    alpha/sqrt(r)), ``proportional`` (alpha = ``alpha_over_rank`` * r, same scale for all ranks)."""

    lora_alpha: Positive | Annotated[tuple[Positive, ...], Field(min_length=1)] = 32.0
    """Alpha under the rules ``fixed`` and ``rslora``: one for all ranks, or a list with one per rank in their order."""

    alpha_over_rank: Positive = 4.0
    """Alpha divided by the rank under the rule ``proportional``."""

    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout probability of an adapter's inputs in training."""

    target_modules: tuple[str, ...] | str | None = None
    """Layers to adapt, as in PEFT: name suffixes, one regular expression, or ``all-linear``. Default: the query, key
    and value projections."""

    learning_rates: (
        Annotated[tuple[Positive, ...], Field(min_length=1), AfterValidator(_no_duplicates)] | Literal["auto"]
    ) = (3e-4,)
    """Learning rates to try for every rank, or ``auto``: three per rank, a factor of 3 apart, around a start that
    follows the alpha rule. Each rank is compared at its own best one."""

    early_exit: bool = True
    """With three or more learning rates, stop those that fall behind in held-out loss; ranks are never stopped. Only
    the first seed searches; the other seeds train at the remaining rates."""

    max_grid_extensions: Annotated[int, Field(ge=0, strict=True)] = 2
    """Most learning rates added on either side of the grid while a rank's best one is at its edge; 0 never extends the
    grid. Needs two or more learning rates."""

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(_no_duplicates)] = (0,)
    """Seeds of adapter initialisation, dropout and row order, which is the same for all ranks of a seed."""

    per_device_train_batch_size: Count = 8
    """Rows per batch."""

    gradient_accumulation_steps: Count = 1
    """Batches per optimizer step; the loss is divided by the target tokens of all of them."""

    num_train_epochs: Positive = 1.0
    """Epochs over the training rows, unless ``max_steps`` is set."""

    max_steps: Count | None = None
    """Optimizer steps; overrides ``num_train_epochs``."""

    lr_scheduler_type: Scheduler = "linear"
    """Learning-rate schedule after warm-up; ``linear`` and ``cosine`` decay to zero."""

    warmup_steps: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Steps of linear warm-up; below 1, a share of all steps."""

    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """AdamW's decoupled weight decay."""

    max_grad_norm: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Gradient norm that each trial is clipped to; 0 disables clipping."""

    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """AdamW's decay of the gradient average."""

    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """AdamW's decay of the squared-gradient average."""

    adam_epsilon: Positive = 1e-8
    """AdamW's epsilon."""

    eval_steps: Count | None = None
    """Steps between held-out evaluations, besides those at the start and the end. Default: a quarter of the run; with
    early exit, the steps at which trials may stop, and halfway from there to the end."""

    tolerance: Positive = 0.005
    """A rank is adequate if no other has a held-out loss lower by more than this, in nats per token. 0.005 nats are
    0.5 % of perplexity."""

    convergence_band: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """A training loss has converged once its moving average stays this close to its final level, as a share of it."""

    max_memory: Size | None = None
    """Memory limit of recommended ranks when trained solo, such as ``8GB`` or ``7.5GiB``."""

    max_seconds: Positive | None = None
    """Time limit of recommended ranks when trained solo, in seconds."""

    max_adapter_mb: Positive | None = None
    """Size limit of the adapters of recommended ranks, in MB (10^6 bytes)."""

    cost: Cost = "quick"
    """Solo runs, which measure the time and memory of each rank before training. ``quick``: two runs per rank, with
    four steps and one evaluation micro-batch in all; ``full``: four runs, 24 steps; ``off``: none. Runs of the ranks
    alternate. A finished study may be given more."""

    tokens_per_pass: Annotated[int, Field(ge=1, strict=True)] = 3072
    """Most tokens of a micro-batch, unless a single row is longer; bounds the memory of activations."""

    share_prefixes: Literal["exact", "always", "never"] = "exact"
    """Compute prefixes that rows of a batch share only once. ``exact``: if only rounding changes, which is so in
    evaluation and in training without LoRA dropout; ``always``: also with dropout, whose mask is then shared by the
    prefix; ``never``. Needs packing and the compiled kernels."""

    packing: bool = True
    """Pack rows without padding if the model allows it (verified when the run starts)."""

    kernels: bool = True
    """On a CPU, use kernels compiled once for this machine, if it has a C++ compiler, and they reproduce the model's
    logits and are not slower than Torch (both verified when the run starts)."""

    dtype: Dtype = "auto"
    """Precision of the frozen base. Adapters, gradients and optimizer states are float32 or wider."""

    device: NonEmpty = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:1``, ... (GPU runs are untested by the project; ``mps`` is refused)."""

    trust_remote_code: bool = False
    """Run code that a model on the hub ships."""

    truncation: bool = True
    """After training, truncate the largest rank's adapter by singular values to ranks 1, 2, 4, ... and to the other
    ranks, and evaluate each. Costs one held-out evaluation each: for ranks 8 and 256, eight."""

    forgetting_text: NonEmpty = BUILTIN_TEXT
    """Text whose loss before and after training shows what was forgotten: a UTF-8 file, ``builtin:python-reference``
    (English prose that ships with Python) or ``none``. Costs one evaluation of at most 32 windows of 256 tokens for the
    base and for each rank."""

    @model_validator(mode="before")
    @classmethod
    def _read_bare_off(cls, given: object) -> object:
        """Take YAML's bare ``off``, which is false to it, for the word."""
        return {**given, "cost": "off"} if isinstance(given, dict) and given.get("cost") is False else given

    @model_validator(mode="after")
    def _templates_come_in_pairs(self) -> Self:
        if self.completion_template is not None and self.prompt_template is None:
            raise PydanticCustomError("template", "completion_template needs a prompt_template", {})
        if self.dataset_format == "template" and self.prompt_template is None:
            raise PydanticCustomError("template", "dataset_format 'template' needs a prompt_template", {})
        return self

    @model_validator(mode="after")
    def _alpha_and_its_rule_agree(self) -> Self:
        alphas, proportional = self.lora_alpha, self.alpha_rule == "proportional"
        if proportional and alphas != StudySpec.model_fields["lora_alpha"].default:
            raise _contradiction(
                "lora_alpha is given, but under alpha_rule proportional alpha is alpha_over_rank * r",
                "leave lora_alpha out, or choose alpha_rule fixed or rslora",
            )
        if not proportional and self.alpha_over_rank != StudySpec.model_fields["alpha_over_rank"].default:
            raise _contradiction(
                f"alpha_over_rank is given, but alpha_rule {self.alpha_rule} takes lora_alpha",
                "leave alpha_over_rank out, or choose alpha_rule proportional",
            )
        if isinstance(alphas, tuple) and len(alphas) != len(self.ranks):
            raise _contradiction(
                f"lora_alpha has {_values(len(alphas))}, and ranks has {_values(len(self.ranks))}",
                "give one alpha for all ranks, or one for each rank",
            )
        return self

    @model_validator(mode="after")
    def _limits_need_solo_runs(self) -> Self:
        limits = [name for name in ("max_memory", "max_seconds") if getattr(self, name) is not None]
        if limits and self.cost == "off":
            raise _contradiction(
                f"{limits[0]} needs the solo runs, which cost off skips",
                "choose cost quick or full",
            )
        return self


def _contradiction(problem: str, remedy: str) -> PydanticCustomError:
    return PydanticCustomError("contradiction", "{problem}", {"problem": problem, "remedy": remedy})


def _values(count: int) -> str:
    return "1 value" if count == 1 else f"{count} values"

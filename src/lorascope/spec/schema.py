"""The study a user asks for: one frozen object, validated once at the edge and passed whole.

Names that PEFT, Transformers and TRL have keep their meaning here. The text under a field is its only
documentation: ``--help`` and the reference page are made from it.
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
Seed = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
Size = Annotated[str, BeforeValidator(_is_size)]

FILE_SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
"""Endings of files of rows."""

READING_FIELDS = frozenset({"tolerance", "convergence_band", "max_memory", "max_seconds", "max_adapter_mb", "cost"})
"""Fields that change what is read or measured, not what is trained: a finished study may be given others."""


class StudySpec(BaseModel):
    """Everything one study depends on; two equal specs give equal results on one machine."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: str = Field("builtin:smollm2-135m", min_length=1)
    """Base model: a hub id, a folder, a GGUF file, or ``builtin:smollm2-135m``."""

    dataset: str = Field("builtin:python-stdlib", min_length=1)
    """Rows: a hub id, a file (.json, .jsonl, .csv, .parquet), a saved ``datasets`` folder, or
    ``builtin:python-stdlib``."""

    split: str = Field("train", min_length=1)
    """Rows to use, in the split syntax of ``datasets``: ``train``, ``train[:50%]``, ``train[100:200]``."""

    eval_split: str | None = None
    """Another split to hold out. Without it, held-out rows are taken from ``split`` by ``split_seed``."""

    eval_examples: Annotated[int, Field(ge=2, strict=True)] | None = None
    """How many rows to hold out, two at least. Default: a tenth of the rows, at most 256."""

    dataset_format: DatasetFormat = "auto"
    """How columns become text. ``auto`` decides by the column names."""

    prompt_template: str | None = None
    """Own prompt over the columns, such as ``### Question: {instruction}\\n ### Answer: ``; implies the format
    ``template``."""

    completion_template: str | None = None
    """Own completion over the columns, such as ``{output}``; implies the format ``template``."""

    completion_only_loss: bool | None = None
    """Take the loss on the completion only. Default: yes wherever the format has a completion, else on all tokens."""

    max_length: Annotated[int, Field(ge=2, strict=True)] = 1024
    """Rows are cut at this many tokens."""

    split_seed: Seed = 0
    """Chooses the held-out rows. The order of training rows follows each trial's seed."""

    ranks: Annotated[tuple[Count, ...], Field(min_length=1), AfterValidator(_no_duplicates)] = (8, 128, 256)
    """LoRA ranks to compare."""

    alpha_rule: AlphaRule = "fixed"
    """How ``lora_alpha`` follows the rank: ``fixed`` (same alpha, scale alpha/r), ``rslora`` (same alpha, scale
    alpha/sqrt(r)), ``proportional`` (alpha = ``alpha_over_rank`` * r, the same scale for all ranks)."""

    lora_alpha: Positive | Annotated[tuple[Positive, ...], Field(min_length=1)] = 32.0
    """Alpha under the rules ``fixed`` and ``rslora``: one for all ranks, or a list with one for each rank, in their
    order."""

    alpha_over_rank: Positive = 4.0
    """Alpha divided by r under the rule ``proportional``."""

    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping an input of an adapter in training."""

    target_modules: tuple[str, ...] | str | None = None
    """Layers to adapt, as in PEFT: name endings, one regular expression, or ``all-linear``. Default: the query, key
    and value projections."""

    learning_rates: (
        Annotated[tuple[Positive, ...], Field(min_length=1), AfterValidator(_no_duplicates)] | Literal["auto"]
    ) = (3e-4,)
    """Learning rates to try for every rank, or ``auto``: three for each rank, a factor of 3 apart, around a start that
    follows the alpha rule. Every rank is judged at its own best one."""

    early_exit: bool = True
    """With three or more learning rates, stop those that fall behind in held-out loss; ranks are never stopped. The
    first seed alone looks for each rank's rate; the other seeds are trained at the rates that are left."""

    max_grid_extensions: Annotated[int, Field(ge=0, strict=True)] = 2
    """Learning rates added at most on either side where a rank's best one lies at the edge of two or more; 0 trains
    the grid as it is."""

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(_no_duplicates)] = (0,)
    """Seeds of initial adapters, dropout and row order. All ranks of one seed see the same rows in the same order."""

    per_device_train_batch_size: Count = 8
    """Rows of one batch."""

    gradient_accumulation_steps: Count = 1
    """Batches of one optimizer step; the loss is divided by the target tokens of all of them together."""

    num_train_epochs: Positive = 1.0
    """Passes over the training rows, unless ``max_steps`` says otherwise."""

    max_steps: Count | None = None
    """Optimizer steps; overrides ``num_train_epochs``."""

    lr_scheduler_type: Scheduler = "linear"
    """Course of the learning rate after warm-up: ``linear`` and ``cosine`` fall to zero."""

    warmup_steps: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Steps in which the learning rate rises linearly; below 1, a share of all steps."""

    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """AdamW's decoupled weight decay."""

    max_grad_norm: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Each trial's gradient is clipped to this norm by itself; 0 turns clipping off."""

    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """AdamW's decay of the gradient average."""

    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """AdamW's decay of the squared-gradient average."""

    adam_epsilon: Positive = 1e-8
    """AdamW's epsilon."""

    eval_steps: Count | None = None
    """Steps between held-out evaluations. Default: a quarter of the run, or with early exit the steps at which trials
    may stop and half the way from there to the end. The start and the end are always evaluated."""

    tolerance: Positive = 0.005
    """A rank is adequate when no other has a held-out loss lower by more than this, in nats a token. 0.005 nats are
    0.5 % of perplexity."""

    convergence_band: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """A training loss is stable once its average stays this close to its final level, as a share of that level."""

    max_memory: Size | None = None
    """Most memory that training one rank may take, such as ``8GB`` or ``7.5GiB``: recommended ranks stay below."""

    max_seconds: Positive | None = None
    """Most seconds that training one rank alone may take: recommended ranks stay below."""

    max_adapter_mb: Positive | None = None
    """Most MB (10^6 bytes) that an adapter's weights may take: recommended ranks stay below."""

    cost: Cost = "quick"
    """How long every rank is first run alone to measure its own time and memory. ``quick``: two turns, four steps and
    one pass of an evaluation in all; ``full``: four turns, 24 steps; ``off``: not at all. Turns of different ranks
    alternate. A finished study may be given more."""

    tokens_per_pass: Annotated[int, Field(ge=1, strict=True)] = 3072
    """Most tokens that go through the model at once (a longer row goes alone); bounds the memory of activations."""

    share_prefixes: Literal["exact", "always", "never"] = "exact"
    """Compute a beginning that several rows of a batch have in common once. ``exact``: where this changes nothing but
    rounding, in evaluation and in training without LoRA dropout; ``always``: also with dropout, where the shared tokens
    then share a dropout mask. Needs packing and the compiled kernels."""

    packing: bool = True
    """Pack rows without padding where the model allows it (checked when the run starts)."""

    kernels: bool = True
    """On a CPU, compute steps with kernels that are compiled once for this machine, where it has a C++ compiler and
    they give the model's own logits (checked when the run starts)."""

    dtype: Dtype = "auto"
    """Precision of the frozen base. Adapters, their gradients and optimizer states are float32 at least."""

    device: str = Field("auto", min_length=1)
    """``auto``, ``cpu``, ``cuda``, ``cuda:1``, ... (GPU runs are untested by the project; ``mps`` is refused)."""

    trust_remote_code: bool = False
    """Run code that comes with a model from the hub."""

    truncation: bool = True
    """After training, cut the adapter of the largest rank by singular values to 1, 2, 4, ... and to the other ranks,
    and evaluate each cut. Costs one held-out evaluation a cut: for ranks 8 and 256, eight."""

    forgetting_text: str = Field(BUILTIN_TEXT, min_length=1)
    """Text whose loss is taken before training and for each rank after it, to see what was forgotten: a UTF-8 file,
    ``builtin:python-reference`` (English prose that Python carries) or ``none``. Costs one pass over at most 32 windows
    of 256 tokens for the base and for each rank."""

    @model_validator(mode="before")
    @classmethod
    def _read_older_and_bare_words(cls, given: object) -> object:
        """Take YAML's bare ``off``, which is false to it, for the word; read an earlier version's ``cost_steps``."""
        if not isinstance(given, dict):
            return given
        fields = {name: value for name, value in given.items() if name != "cost_steps"}
        steps = given.get("cost_steps")
        if isinstance(steps, int):
            fields.setdefault("cost", "quick" if steps else "off")
        elif steps is not None:
            fields["cost_steps"] = steps
        if fields.get("cost") is False:
            fields["cost"] = "off"
        return fields

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
    def _what_is_limited_is_measured(self) -> Self:
        limits = [name for name in ("max_memory", "max_seconds") if getattr(self, name) is not None]
        if limits and self.cost == "off":
            raise _contradiction(
                f"{limits[0]} needs each rank's own measurement, which cost off leaves out",
                "choose cost quick or full",
            )
        return self


def _contradiction(problem: str, remedy: str) -> PydanticCustomError:
    return PydanticCustomError("contradiction", "{problem}", {"problem": problem, "remedy": remedy})


def _values(count: int) -> str:
    return "1 value" if count == 1 else f"{count} values"

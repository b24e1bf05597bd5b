"""Fields of the training."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from lorascope.spec.fields.types import Count, Fields, Positive, Seed, no_duplicates

Scheduler = Literal["constant", "linear", "cosine"]


class TrainingFields(Fields):
    """How every adapter is trained and evaluated."""

    learning_rates: (
        Annotated[tuple[Positive, ...], Field(min_length=1), AfterValidator(no_duplicates)] | Literal["auto"]
    ) = (3e-4,)
    """Learning rates to try for every rank, or ``auto``: three per rank, a factor of 3 apart, around a start that
    follows the alpha rule. Each rank is compared at its own best one."""

    early_exit: bool = True
    """With three or more learning rates, stop those that fall behind in held-out loss; ranks are never stopped. Only
    the first seed searches; the other seeds train at the remaining rates."""

    max_grid_extensions: Annotated[int, Field(ge=0, strict=True)] = 2
    """Most learning rates added on either side of the grid while a rank's best one is at its edge; 0 never extends the
    grid. Needs two or more learning rates."""

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(no_duplicates)] = (0,)
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

"""What one measured process is asked to do and what it answers."""

import resource
import sys
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from lorascope.spec.schema import StudySpec

ProgramName = Literal[
    "lorascope", "lorascope-shared", "lorascope-float32",
    "trainer", "trainer-bf16", "trainer-bf16-weights", "trl-packed", "trl",
]  # fmt: skip
PEERS: tuple[ProgramName, ...] = ("trainer", "trainer-bf16", "trl-packed", "trl", "trainer-bf16-weights")
BUILTIN_ROWS = "builtin:python-stdlib"
_PROMPT = "### Question: {instruction}\n ### Answer: "


class Job(BaseModel):
    """One program over some rows, in a process of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    program: ProgramName
    ranks: tuple[int, ...]
    """Peers train one; lorascope trains all of them together."""
    model: str
    dataset: str = BUILTIN_ROWS
    rows: int = 64
    answers_only: bool = False
    """The loss is on the answers alone, and the prompts are those of the preset ``opt-350m-codealpaca``."""
    max_steps: int | None = None
    """For lorascope only: peers train one epoch."""
    learning_rates: tuple[float, ...] = (3e-4,)
    row_lengths: tuple[int, ...] | None = None
    """Rows of random tokens in place of the data set's, each as long as this says."""
    bound_steps: int = 0
    """Steps whose share of the arithmetic bound is measured after the training."""
    started: float = 0.0
    """``time.monotonic()`` just before the process was made; whoever makes it fills this in."""


class StepShare(BaseModel):
    """One step beside its matrix products alone."""

    model_config = ConfigDict(frozen=True)

    step: int
    training_seconds: float
    """The step in the measured training."""
    step_seconds: float
    """The same step again, just before its products were replayed."""
    product_seconds: float
    """The step's matrix products alone, without those of the attention kernel."""
    attention_seconds: float = 0.0
    """What the attention kernel's products would take as the library's batched products."""
    products: int
    flops: int

    @property
    def share(self) -> float:
        """Return the share of the repeated step that its products alone need."""
        return self.bound_seconds / self.step_seconds

    @property
    def bound_seconds(self) -> float:
        """Return the seconds of all products: the bound."""
        return self.product_seconds + self.attention_seconds


class Result(BaseModel):
    """What one process measured."""

    model_config = ConfigDict(frozen=True)

    program: ProgramName
    ranks: tuple[int, ...]
    train_seconds: float
    """From just before the first step to after the last, model and rows ready."""
    process_seconds: float
    """From before the process was made to the end of its training, imports included."""
    peak_rss_bytes: int
    """Most that the process ever held, up to the end of its training."""
    before_rss_bytes: int
    """What it held just before its first step."""
    steps: int
    tokens: int
    """Real tokens that went through the model, all ranks together."""
    train_loss: dict[str, float]
    """Mean of the steps' losses in nats a token, by trial."""
    step_losses: dict[str, tuple[float, ...]] = {}
    """Loss of every step, by trial; empty where the program does not give it."""
    step_seconds: tuple[float, ...] = ()
    step_tokens: tuple[int, ...] = ()
    trainable_parameters: int
    data_hash: str
    threads: int
    dtype: str
    settings: dict[str, object]
    """Everything the program was told, but for paths."""
    shares: tuple[StepShare, ...] = ()


def study_of(job: Job) -> StudySpec:
    """Return the study that lorascope trains and whose numbers the peers are given.

    Two rows behind the training rows are held out by name, so that the training rows are the first of the data set.
    """
    prompts: dict[str, Any] = {"prompt_template": _PROMPT, "completion_template": "{output}", "max_length": 128}
    return StudySpec(
        **(prompts if job.answers_only else {"max_length": 512}),
        model=job.model,
        dataset=job.dataset,
        split=f"train[:{job.rows}]",
        eval_split=f"train[{job.rows}:{job.rows + 2}]",
        completion_only_loss=job.answers_only,
        ranks=job.ranks,
        alpha_rule="proportional",
        alpha_over_rank=4.0,
        lora_dropout=0.1,
        share_prefixes="always" if job.program == "lorascope-shared" else "exact",
        target_modules=("q_proj", "k_proj", "v_proj"),
        learning_rates=job.learning_rates,
        per_device_train_batch_size=8,
        num_train_epochs=1.0,
        max_steps=job.max_steps,
        lr_scheduler_type="linear",
        early_exit=False,
        max_grid_extensions=0,
        cost="off",
        samples=0,
        dtype="float32" if job.program == "lorascope-float32" else "auto",
        device="cpu",
    )


def shown_source(source: str) -> str:
    """Return a model or data set as results name it: a file or folder without the way to it."""
    return Path(source).name if Path(source).expanduser().exists() else source


def seconds_since(started: float) -> float:
    """Return the seconds since another process read this machine's monotonic clock."""
    return time.monotonic() - started


def peak_rss_bytes() -> int:
    """Return the most this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

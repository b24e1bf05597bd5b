"""Fields of the computation."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from lorascope.spec.fields.types import Fields, NonEmpty

Dtype = Literal["auto", "float32", "bfloat16", "float64"]


def _split_names(given: object) -> object:
    """Take names between commas for a list, and ``none`` for an empty one."""
    names = tuple(given.split(",")) if isinstance(given, str) else given
    return () if names in (("none",), ["none"]) else names


class ComputeFields(Fields):
    """How steps are computed; no field but the precision changes more than rounding."""

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

    quantize: Literal["nf4", "int8"] | None = None
    """Quantise the base's linear layers as they are loaded, with bitsandbytes: ``nf4`` (4 bits, as QLoRA does) or
    ``int8``. Models that are stored quantised need no flag."""

    device: NonEmpty = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:1``, ... (GPU runs are untested by the project; ``mps`` is refused)."""

    executor: NonEmpty = "inline"
    """Where trials train. ``inline``: in this process; ``process``: in several processes of this machine, one a GPU, or
    one a part of the CPU's cores. A study may go on with another one than it began with."""

    workers: Annotated[int, Field(ge=1, strict=True)] | None = None
    """Groups that the trials of a round are split into, and workers that train them; ``inline`` trains one group after
    another. By default one, and with ``process`` one a GPU, or one for every eight cores. Learning rates that are
    compared at rungs stay in one group. Another number changes nothing but rounding."""

    report_to: Annotated[tuple[NonEmpty, ...], BeforeValidator(_split_names)] = ()
    """Experiment trackers that follow the run: ``wandb``, ``mlflow``, ``tensorboard``, ``trackio``; each is an extra of
    the package. ``none`` overrides those of a study file. One that fails or hangs does not disturb the run."""

    trust_remote_code: bool = False
    """Run code that a model on the hub ships."""

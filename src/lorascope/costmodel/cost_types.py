"""Inputs and outputs of the cost model: model shapes, training configurations, steps, predictions. No Torch."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from lorascope.units import DTYPE_BYTES, lora_parameters


class Matmul(NamedTuple):
    """A matrix product, [rows, inner] times [inner, columns]."""

    rows: int
    inner: int
    columns: int
    layout: Literal["nt", "nn", "tn"]
    """Which factor is stored transposed, as in BLAS: ``nt`` the second, ``tn`` the first."""

    @property
    def flops(self) -> int:
        """Count a multiplication and an addition for each term."""
        return 2 * self.rows * self.inner * self.columns

    @property
    def values(self) -> int:
        """Count the elements of operands and result."""
        return self.rows * self.inner + self.inner * self.columns + self.rows * self.columns


class Hardware(Protocol):
    """Speed of a device."""

    @property
    def overlaps(self) -> bool:
        """True if operations are launched asynchronously, while earlier ones run."""

    @property
    def launch_seconds(self) -> float:
        """Time to launch one operation."""

    def matmul_seconds(self, matmul: Matmul, dtype: str) -> float:
        """Return the time of one matrix product."""

    def attention_seconds(self, flops: float, dtype: str) -> float:
        """Return the time of attention with this many operations."""

    def bytes_seconds(self, n_bytes: float) -> float:
        """Return the time to move weights and optimizer states through memory."""

    def activation_seconds(self, n_bytes: float) -> float:
        """Return the time that elementwise operations take to move activations through memory."""

    def refine(self) -> bool:
        """Repeat all measurements and keep their medians; False where nothing is measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearShape:
    """Frozen linear layers of one shape."""

    n_in: int
    n_out: int
    adapted: bool
    count: float
    """Layers that a token passes through; of routed experts only the active ones."""
    rank: int | None = None
    """Of the adapter here, where it does not follow the adapter's own."""
    stored: int | None = None
    """All experts, where these layers are routed experts."""
    share: int = 1
    """The adapter's rank is divided by this here."""

    @property
    def layers(self) -> float:
        """All layers, those that a token does not pass through included."""
        return self.count if self.stored is None else self.stored

    def rank_here(self, rank: int) -> int:
        """Return the rank of the adapter here."""
        return self.rank or max(1, rank // self.share)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """A causal language model in numbers. Features are summed over all layers, for one token."""

    parameters: int
    linears: tuple[LinearShape, ...]
    """All linear layers but the output head."""
    width: int
    """Input features of the output head."""
    vocabulary: int
    blocks: int
    norms: int
    norm_features: int
    """Input features of all normalisations."""
    wide_norms: bool
    """True if normalisations compute in float32 and keep that copy, as Transformers' RMSNorm does."""
    query_features: int
    key_value_features: int
    """Keys and values together."""
    heads: int
    """Attention heads of all layers."""
    hidden_features: int
    """Between the two projections of all feed-forward layers."""
    gated: bool
    """True if feed-forward layers multiply two projections."""
    kept_by_activation: int
    """Values that the activation function saves for backward, per value that it reads."""
    inputs: int
    """Distinct input features of linear layers."""
    adapted_inputs: int
    """Distinct input features of adapted layers."""
    trained_embeddings: int = 0
    """Parameters of input embeddings that each trial trains whole."""
    trained_head: int = 0
    """The same of the output head."""
    weight_bits: float | None = None
    """Of a weight of the linear layers, scales included, where the base is quantised."""

    @property
    def packed(self) -> float:
        """Weights that are stored packed; experts in one parameter never are."""
        layers = (part for part in self.linears if part.stored is None)
        return sum(part.count * part.n_in * part.n_out for part in layers) if self.weight_bits else 0

    def base_bytes(self, dtype: str) -> int:
        """Return the bytes of the base's weights in a precision, packed ones as they are stored."""
        value = DTYPE_BYTES[dtype]
        return round(self.parameters * value - self.packed * (value - (self.weight_bits or 0) / 8))

    @property
    def whole_parameters(self) -> int:
        """Return the parameters of modules that each trial trains whole."""
        return self.trained_embeddings + self.trained_head

    def adapter_parameters(self, rank: int) -> int:
        """Return the parameters of an adapter, with those of modules that are trained whole."""
        return self.whole_parameters + sum(
            round(part.layers) * lora_parameters(part.rank_here(rank), [(part.n_in, part.n_out)])
            for part in self.linears
            if part.adapted
        )

    def low_rank_features(self, rank: int) -> float:
        """Return the values of dropped(x) A^T in all layers, for one token."""
        return sum(part.count * part.rank_here(rank) for part in self.linears if part.adapted)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """How a program trains: bytes it stores and moves per trained parameter, and what it saves for backward."""

    dtype: str
    """Precision of the base and of its matrix products."""
    low_rank_dtype: str
    """Precision of the adapters' matrix products."""
    weight_bytes: int = 4
    """Of a trained parameter."""
    copy_bytes: int = 0
    """Of its copy in the precision of the products, which full fine-tuning has, or of an adapter's first values, which
    all trials of a rank share."""
    gradient_bytes: int = 4
    optimizer_bytes: int = 8
    """AdamW's two averages."""
    update_bytes: int = 44
    """Moved per parameter and update: a fused AdamW reads 16 and writes 12, the norm reads 4, clipping moves 8, zeroing
    4."""
    rounding_bytes: int = 0
    """Moved per adapter parameter and micro-batch if products have a lower precision than weights: kernels read 2 more
    in each direction, a cast reads 4 and writes 2."""
    adapter_launches: int = 10
    """Operations of an adapter in a layer, both directions."""
    gradient_at_peak: bool = True
    """True if gradients are allocated while activations are kept."""
    fused: bool = False
    """True if compiled kernels compute normalisation, gating and attention and save only their inputs."""
    chunk: int | None = 512
    """Tokens whose logits exist at once; None: all."""
    matmul_factor: float = 1.0
    """Time of the base's products within a step relative to their time in isolation."""
    low_rank_factor: float = 1.0
    """The same for the adapters' products."""
    heap_overhead: float = 0.0
    """Unused memory between the activations of a micro-batch, as a share of them."""
    trains_base: bool = False
    """True for full fine-tuning."""


class MicroBatch(NamedTuple):
    """Rows that go through the model at once."""

    slots: tuple[int, ...]
    """Computed tokens of each adapter's rows."""
    targets: int
    """Tokens that the loss is taken on."""
    squared_lengths: int
    """Sum of the squared row lengths."""
    kept_scores: int = 0
    """The same over rows whose attention scores are saved for backward."""


class Step(NamedTuple):
    """One optimizer step."""

    microbatches: tuple[MicroBatch, ...]
    tokens: int
    """Tokens of one adapter's rows, without padding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemorySplit:
    """Peak memory of a step by what holds it."""

    base_bytes: int
    adapter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    rest_bytes: int

    @property
    def total_bytes(self) -> int:
        """Sum of all parts."""
        states = self.adapter_bytes + self.gradient_bytes + self.optimizer_bytes
        return self.base_bytes + states + self.activation_bytes + self.rest_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class CostPrediction:
    """Predicted cost of a step."""

    trained_parameters: int
    step_seconds: float
    step_flops: float
    step_bytes: float
    """Memory traffic, with each operand of each product counted once."""
    memory: MemorySplit


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedCost:
    """Predicted cost of training."""

    trainable_parameters: int
    adapter_bytes: int
    """Of the parameters in the files; in full fine-tuning, of the weights."""
    flops_per_token: float
    bytes_per_step: float
    step_seconds: float
    runtime_seconds: float | None
    """All steps; None if the number of rows is unknown."""
    peak_memory_bytes: int
    memory_split: MemorySplit
    fits: bool
    largest_batch: int
    """Rows of mean length that fit in one micro-batch."""

"""What the cost model computes with: a model's shape, how a program trains, steps, and what comes out. No Torch."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

VALUE_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


class Product(NamedTuple):
    """A matrix product, [rows, inner] times [inner, columns]."""

    rows: int
    inner: int
    columns: int
    form: Literal["nt", "nn", "tn"]
    """Which factor is stored transposed: ``nt`` the second, ``tn`` the first."""

    @property
    def flops(self) -> int:
        """Count a multiplication and an addition for each term."""
        return 2 * self.rows * self.inner * self.columns

    @property
    def values(self) -> int:
        """Count the numbers that are read and written once."""
        return self.rows * self.inner + self.inner * self.columns + self.rows * self.columns


class Machine(Protocol):
    """How fast something computes."""

    @property
    def overlaps(self) -> bool:
        """True: operations are launched while earlier ones run."""

    @property
    def launch_seconds(self) -> float:
        """Time to launch one operation."""

    def product_seconds(self, product: Product, dtype: str) -> float:
        """Return the time of one product."""

    def attention_seconds(self, flops: float, dtype: str) -> float:
        """Return the time of attention that takes so many operations."""

    def bytes_seconds(self, n_bytes: float) -> float:
        """Return the time that so many bytes of weights and their states take through memory."""

    def activation_seconds(self, n_bytes: float) -> float:
        """Return the time that operations other than products take for so many bytes of activations."""

    def settle(self) -> bool:
        """Measure again what was asked for, all side by side; False where nothing is measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearShape:
    """Frozen linear layers of one shape."""

    n_in: int
    n_out: int
    adapted: bool
    count: float
    """Layers that a token goes through; of routed experts only those it is sent to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """A language model as the cost model sees it. Features are summed over all layers, for one token."""

    parameters: int
    linears: tuple[LinearShape, ...]
    """All linear layers but the output head."""
    width: int
    """Features that the output head reads."""
    vocabulary: int
    blocks: int
    norms: int
    norm_features: int
    """Inputs of all normalisations."""
    wide_norms: bool
    """True: normalisations compute in float32 and keep that copy, as Transformers' RMSNorm does."""
    query_features: int
    key_value_features: int
    """Keys and values together."""
    heads: int
    """Attention heads of all layers together."""
    hidden_features: int
    """Between the two projections of all feed-forward layers."""
    gated: bool
    """True: feed-forward layers multiply two projections."""
    kept_by_activation: int
    """Values that the activation function keeps for each value it reads."""
    inputs: int
    """Different inputs of linear layers."""
    adapted_inputs: int
    """Different inputs of adapted layers."""

    @property
    def per_rank(self) -> int:
        """Parameters of an adapter, divided by its rank."""
        return sum(round(part.count) * (part.n_in + part.n_out) for part in self.linears if part.adapted)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """How a program trains: what it stores for each trained parameter and what it keeps of a pass."""

    dtype: str
    """Precision of the base and its products."""
    low_rank_dtype: str
    """Precision of the products with an adapter."""
    weight_bytes: int = 4
    """Of a trained parameter."""
    copy_bytes: int = 0
    """Of its copy in the precision of the products, which full fine-tuning has."""
    gradient_bytes: int = 4
    optimizer_bytes: int = 8
    """AdamW's two averages."""
    update_bytes: int = 44
    """That an update moves for a parameter: a fused AdamW reads 16 and writes 12, the norm reads 4, clipping moves 8,
    zeroing 4."""
    rounding_bytes: int = 0
    """That a pass moves for a parameter of its adapters because products have a lower precision than weights: kernels
    read 2 more in each direction, a cast reads 4 and writes 2."""
    adapter_launches: int = 10
    """Operations of an adapter in a layer, both directions."""
    gradient_at_peak: bool = True
    """True: gradients have their memory while activations are kept."""
    fused: bool = False
    """True: compiled kernels compute normalisation, gating and attention and keep their inputs only."""
    chunk: int | None = 512
    """Tokens whose logits exist at once; None: all."""
    product_factor: float = 1.0
    """How much longer than measured alone products with the base's weights take in a step."""
    low_rank_factor: float = 1.0
    """The same of products with an adapter."""
    holes: float = 0.0
    """Memory that lies idle between a pass's activations, as a share of them."""
    trains_base: bool = False
    """True: full fine-tuning."""


class MicroBatch(NamedTuple):
    """Rows that go through the model at once."""

    slots: tuple[int, ...]
    """Computed tokens of each adapter's rows."""
    targets: int
    """Tokens that the loss is taken on."""
    squares: int
    """Sum of the squared lengths of the rows."""
    scores: int = 0
    """The same over rows whose attention scores are kept for the way back."""


class Step(NamedTuple):
    """One optimizer step."""

    microbatches: tuple[MicroBatch, ...]
    tokens: int
    """Real tokens of one adapter's rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemorySplit:
    """Bytes at the peak of a step."""

    base: int
    adapter: int
    gradient: int
    optimizer: int
    activation: int
    rest: int

    @property
    def total(self) -> int:
        """Add the parts up."""
        return self.base + self.adapter + self.gradient + self.optimizer + self.activation + self.rest


@dataclass(frozen=True, kw_only=True, slots=True)
class CostPrediction:
    """What a step costs."""

    trained_parameters: int
    step_seconds: float
    step_flops: float
    step_bytes: float
    """Bytes through memory, counting each operand of each product once."""
    memory: MemorySplit

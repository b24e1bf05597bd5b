"""What a training step costs, from shapes alone: operations, bytes, memory by part, seconds. Pure numbers, no Torch.

Principles (docs/decisions has the reasons, docs/numbers.md the definitions):

- A product takes as long as its arithmetic or its operands' way through memory, whichever is longer (the roofline of
  Williams, Waterman and Patterson, CACM 2009). So a low-rank product, which reads as much as a wide one and computes
  little, costs nearly the same for all small ranks.
- What is no product moves bytes: kept activations are touched by both directions, an adapter's weights by the update.
- Every operation has to be launched. On a GPU launching runs beside the work, on a CPU before it.
- Memory is counted in parts; the peak of a step lies where its largest pass keeps all activations.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal, NamedTuple, Protocol

VALUE_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
TOUCHES = 5
"""How often a kept activation goes through memory: written and read forward, read backward, its gradient written and
read."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Linear:
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
    linears: tuple[Linear, ...]
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
class Recipe:
    """How a program trains: what it stores for each trained parameter and what it keeps of a pass."""

    dtype: str
    """Precision of the base and its products."""
    low_rank_dtype: str
    """Precision of the products with an adapter."""
    weight_bytes: int = 4
    """Of a trained parameter."""
    copy_bytes: int = 0
    """Of its copy in the precision of the products."""
    gradient_bytes: int = 4
    optimizer_bytes: int = 8
    """AdamW's two averages."""
    update_bytes: int = 50
    """That an update moves for a parameter: a fused AdamW reads 16 and writes 12, the norm reads 4, clipping moves 8,
    zeroing 4, making the copy 6."""
    gradient_at_peak: bool = True
    """True: gradients have their memory while activations are kept."""
    fused: bool = False
    """True: compiled kernels compute normalisation, gating and attention and keep their inputs only."""
    chunk: int | None = 512
    """Tokens whose logits exist at once; None: all."""
    trains_base: bool = False
    """True: full fine-tuning."""


class Pass(NamedTuple):
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

    passes: tuple[Pass, ...]
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
class Prediction:
    """What a step costs."""

    trained_parameters: int
    step_seconds: float
    step_flops: float
    step_bytes: float
    """Bytes through memory, counting each operand of each product once."""
    memory: MemorySplit


@dataclass(frozen=True, slots=True)
class _Work:
    flops: float = 0.0
    n_bytes: float = 0.0
    seconds: float = 0.0
    launches: float = 0.0

    def __add__(self, other: "_Work") -> "_Work":
        return _Work(
            self.flops + other.flops,
            self.n_bytes + other.n_bytes,
            self.seconds + other.seconds,
            self.launches + other.launches,
        )


def predict(
    shape: ModelShape,
    recipe: Recipe,
    steps: Sequence[Step],
    ranks: Sequence[int],
    machine: Machine,
    *,
    rest_bytes: int = 0,
) -> Prediction:
    """Predict the mean step of these, and the peak memory of the largest.

    Args:
        shape: the model.
        recipe: how it is trained.
        steps: steps as they would be taken, at least one.
        ranks: rank of each adapter, in the order of ``Pass.slots``; none in full fine-tuning.
        machine: what computes.
        rest_bytes: memory that is neither the model's nor the training's.
    """
    works = [_step_work(shape, recipe, step, ranks, machine) for step in steps]
    seconds = [_elapsed(work, machine) for work in works]
    trained = shape.parameters if recipe.trains_base else sum(ranks) * shape.per_rank
    passes = [one for step in steps for one in step.passes]
    memory = MemorySplit(
        base=0 if recipe.trains_base else shape.parameters * VALUE_BYTES[recipe.dtype],
        adapter=trained * (recipe.weight_bytes + recipe.copy_bytes),
        gradient=trained * recipe.gradient_bytes,
        optimizer=trained * recipe.optimizer_bytes,
        activation=max(_activation_bytes(shape, recipe, one, ranks) for one in passes),
        rest=rest_bytes,
    )
    return Prediction(
        trained_parameters=trained,
        step_seconds=fmean(seconds),
        step_flops=fmean(work.flops for work in works),
        step_bytes=fmean(work.n_bytes for work in works),
        memory=memory if recipe.gradient_at_peak else _without_overlap(memory),
    )


def _without_overlap(memory: MemorySplit) -> MemorySplit:
    """Let gradients take the place of activations, which are gone when the last of them is there."""
    if memory.activation >= memory.gradient:
        return replace(memory, gradient=0)
    return replace(memory, activation=0)


def forward_seconds(shape: ModelShape, recipe: Recipe, passes: Sequence[Pass], rank: int, machine: Machine) -> float:
    """Predict the time of an evaluation: the forward half of each pass."""
    total = _Work()
    for one in passes:
        for products, dtype in (
            (_products(shape, recipe, one), recipe.dtype),
            (_low_rank_products(shape, one, [rank]), recipe.low_rank_dtype),
        ):
            total += _product_work([pair for pair in products if pair[0].form == "nt"], dtype, machine)
        n_bytes = 2 * _kept_bytes(shape, recipe) * sum(one.slots)
        total += _Work(n_bytes=n_bytes, seconds=machine.activation_seconds(n_bytes))
        total += _Work(launches=_launches(shape, recipe, 1) / 3)
        total += _attention_work(shape, recipe, one, machine, share=2 / 7)
    return _elapsed(total, machine)


def _elapsed(work: _Work, machine: Machine) -> float:
    launching = work.launches * machine.launch_seconds
    return max(work.seconds, launching) if machine.overlaps else work.seconds + launching


def _step_work(shape: ModelShape, recipe: Recipe, step: Step, ranks: Sequence[int], machine: Machine) -> _Work:
    total = _Work()
    trained = shape.parameters if recipe.trains_base else sum(ranks) * shape.per_rank
    for one in step.passes:
        total += _product_work(_products(shape, recipe, one), recipe.dtype, machine)
        total += _product_work(_low_rank_products(shape, one, ranks), recipe.low_rank_dtype, machine)
        n_bytes = TOUCHES * _pass_bytes(shape, recipe, one, ranks)
        total += _Work(n_bytes=n_bytes, seconds=machine.activation_seconds(n_bytes))
        # a pass adds its gradients to those before: read, read, written, after they were written once
        n_bytes = 4 * recipe.gradient_bytes * trained
        total += _Work(n_bytes=n_bytes, seconds=machine.bytes_seconds(n_bytes))
        total += _Work(launches=_launches(shape, recipe, sum(slots > 0 for slots in one.slots)))
        total += _attention_work(shape, recipe, one, machine, share=1.0)
    n_bytes = trained * recipe.update_bytes
    return total + _Work(n_bytes=n_bytes, seconds=machine.bytes_seconds(n_bytes))


def _product_work(products: Sequence[tuple[Product, float]], dtype: str, machine: Machine) -> _Work:
    return _Work(
        flops=sum(product.flops * count for product, count in products),
        n_bytes=sum(product.values * count for product, count in products) * VALUE_BYTES[dtype],
        seconds=sum(machine.product_seconds(product, dtype) * count for product, count in products),
    )


def _products(shape: ModelShape, recipe: Recipe, one: Pass) -> list[tuple[Product, float]]:
    """List the products with the base's weights: forward, and back to the inputs."""
    n = sum(one.slots)
    found: list[tuple[Product, float]] = []
    for part in shape.linears:
        found.append((Product(n, part.n_in, part.n_out, "nt"), part.count))
        found.append((Product(n, part.n_out, part.n_in, "nn"), part.count))
        if recipe.trains_base:
            found.append((Product(part.n_out, n, part.n_in, "tn"), part.count))
    found.append((Product(one.targets, shape.width, shape.vocabulary, "nt"), 1))
    found.append((Product(one.targets, shape.vocabulary, shape.width, "nn"), 1))
    if recipe.trains_base:
        found.append((Product(shape.vocabulary, one.targets, shape.width, "tn"), 1))
    return found


def _low_rank_products(shape: ModelShape, one: Pass, ranks: Sequence[int]) -> list[tuple[Product, float]]:
    """List the six products of each adapter in each adapted layer, for its own rows."""
    found: list[tuple[Product, float]] = []
    for n, rank in zip(one.slots, ranks, strict=False):
        for part in shape.linears if n else ():
            if part.adapted:
                found += [(product, part.count) for product in _adapter_products(n, part.n_in, part.n_out, rank)]
    return found


def _adapter_products(n: int, n_in: int, n_out: int, rank: int) -> Iterator[Product]:
    yield Product(n, n_in, rank, "nt")  # h = x A^T
    yield Product(n, rank, n_out, "nt")  # y += h B^T
    yield Product(n, n_out, rank, "nn")  # dh = dy B
    yield Product(rank, n, n_in, "tn")  # dA = dh^T x
    yield Product(rank, n, n_out, "tn")  # dB^T = h^T dy
    yield Product(n, rank, n_in, "nn")  # dx += dh A


def _attention_work(shape: ModelShape, recipe: Recipe, one: Pass, machine: Machine, *, share: float) -> _Work:
    """Count attention's own products: two forward and five backward, over the half of the scores that is not masked."""
    flops = share * 7 * one.squares * shape.query_features
    return _Work(flops=flops, seconds=machine.attention_seconds(flops, recipe.dtype))


def _launches(shape: ModelShape, recipe: Recipe, adapters: int) -> float:
    """Count operations of a pass, both directions. Transformers' own RMSNorm and rotary attention take many each."""
    norm = 2 if recipe.fused or not shape.wide_norms else 16
    block = (4 if recipe.fused else 30) + (2 if recipe.fused and shape.gated else 8)
    linears = sum(part.count for part in shape.linears)
    adapted = sum(part.count for part in shape.linears if part.adapted)
    return norm * shape.norms + block * shape.blocks + 2 * linears + 10 * adapted * adapters


def _kept_bytes(shape: ModelShape, recipe: Recipe) -> int:
    """Return what a pass keeps for each token until it goes back, adapters left out."""
    value = VALUE_BYTES[recipe.dtype]
    wide = shape.wide_norms and not recipe.fused
    norms = shape.norm_features * (max(value, 4) if wide else value)
    attention = (2 * shape.query_features + shape.key_value_features) * value + 4 * shape.heads
    own = shape.kept_by_activation + 2 * shape.gated
    feed_forward = shape.hidden_features * value * (2 if recipe.fused and shape.gated else own)
    inputs = shape.inputs if recipe.trains_base else shape.adapted_inputs
    return norms + attention + feed_forward + inputs * value


def _pass_bytes(shape: ModelShape, recipe: Recipe, one: Pass, ranks: Sequence[int]) -> int:
    """Return what a pass keeps of its activations."""
    low_rank = sum(part.count for part in shape.linears if part.adapted)
    hidden = sum(n * rank for n, rank in zip(one.slots, ranks, strict=False)) * low_rank
    kept = _kept_bytes(shape, recipe) * sum(one.slots)
    scores = one.scores * shape.heads * VALUE_BYTES[recipe.dtype]
    if one.scores:  # which then take the place of attention's outputs
        kept -= (shape.query_features * VALUE_BYTES[recipe.dtype] + 4 * shape.heads) * sum(one.slots)
    return kept + scores + round(hidden * VALUE_BYTES[recipe.low_rank_dtype])


def slot_bytes(shape: ModelShape, recipe: Recipe, rank: int) -> tuple[int, int]:
    """Return what the head holds at its largest, and what each further token of a pass keeps."""
    one = Pass(slots=(1,), targets=0, squares=1)
    full = Pass(slots=(1,), targets=recipe.chunk or 512, squares=1)
    return (
        _activation_bytes(shape, recipe, full, [rank]) - _activation_bytes(shape, recipe, one, [rank]),
        _activation_bytes(shape, recipe, one, [rank]),
    )


def _activation_bytes(shape: ModelShape, recipe: Recipe, one: Pass, ranks: Sequence[int]) -> int:
    """Return the most that a pass holds: all it keeps, with the head's logits or the last block's gradients on top."""
    value = VALUE_BYTES[recipe.dtype]
    at_once = one.targets if recipe.chunk is None else min(one.targets, recipe.chunk)
    # without kernels the loss makes log probabilities in float32, and their gradient in the base's precision
    logits = at_once * shape.vocabulary * (value if recipe.fused else 2 * value + 4)
    states = 2 * one.targets * shape.width * value
    block = sum(one.slots) * 3 * shape.hidden_features // max(1, shape.blocks) * value
    return _pass_bytes(shape, recipe, one, ranks) + max(logits + states, block)

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

from lorascope.costmodel.cost_types import (
    VALUE_BYTES,
    CostPrediction,
    Machine,
    MemorySplit,
    MicroBatch,
    ModelShape,
    Product,
    Step,
    TrainingConfig,
)

TOUCHES = 5
"""How often a kept activation goes through memory: written and read forward, read backward, its gradient written and
read."""


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
    config: TrainingConfig,
    steps: Sequence[Step],
    ranks: Sequence[int],
    machine: Machine,
    *,
    rest_bytes: int = 0,
) -> CostPrediction:
    """Predict the mean step of these, and the peak memory of the largest.

    Args:
        shape: the model.
        recipe: how it is trained.
        steps: steps as they would be taken, at least one.
        ranks: rank of each adapter, in the order of ``Pass.slots``; none in full fine-tuning.
        machine: what computes.
        rest_bytes: memory that is neither the model's nor the training's.
    """
    works = [_step_work(shape, config, step, ranks, machine) for step in steps]
    seconds = [_elapsed(work, machine) for work in works]
    trained = _trained(shape, config, ranks)
    microbatches = [one for step in steps for one in step.microbatches]
    memory = MemorySplit(
        base=0 if config.trains_base else shape.parameters * VALUE_BYTES[config.dtype],
        adapter=trained * (config.weight_bytes + config.copy_bytes),
        gradient=trained * config.gradient_bytes,
        optimizer=trained * config.optimizer_bytes,
        activation=max(_activation_bytes(shape, config, one, ranks) for one in microbatches),
        rest=rest_bytes,
    )
    return CostPrediction(
        trained_parameters=trained,
        step_seconds=fmean(seconds),
        step_flops=fmean(work.flops for work in works),
        step_bytes=fmean(work.n_bytes for work in works),
        memory=memory if config.gradient_at_peak else _without_overlap(memory),
    )


def _trained(shape: ModelShape, config: TrainingConfig, ranks: Sequence[int]) -> int:
    return shape.parameters if config.trains_base else sum(ranks) * shape.per_rank


def _without_overlap(memory: MemorySplit) -> MemorySplit:
    """Let gradients take the place of activations, which are gone when the last of them is there."""
    if memory.activation >= memory.gradient:
        return replace(memory, gradient=0)
    return replace(memory, activation=0)


def forward_seconds(
    shape: ModelShape, config: TrainingConfig, microbatches: Sequence[MicroBatch], rank: int, machine: Machine
) -> float:
    """Predict the time of an evaluation: the forward half of each pass."""
    total = _Work()
    for one in microbatches:
        for products, dtype, factor in (
            (_products(shape, config, one), config.dtype, config.product_factor),
            (_low_rank_products(shape, one, [rank]), config.low_rank_dtype, config.low_rank_factor),
        ):
            work = _product_work([pair for pair in products if pair[0].form == "nt"], dtype, machine)
            total += replace(work, seconds=factor * work.seconds)
        n_bytes = 2 * _kept_bytes(shape, config) * sum(one.slots)
        total += _Work(n_bytes=n_bytes, seconds=machine.activation_seconds(n_bytes))
        total += _Work(launches=_launches(shape, config, 1) / 3)
        total += _attention_work(shape, config, one, machine, share=2 / 7)
    return _elapsed(total, machine)


def _elapsed(work: _Work, machine: Machine) -> float:
    launching = work.launches * machine.launch_seconds
    return max(work.seconds, launching) if machine.overlaps else work.seconds + launching


def _step_work(shape: ModelShape, config: TrainingConfig, step: Step, ranks: Sequence[int], machine: Machine) -> _Work:
    total = _Work()
    for one in step.microbatches:
        products = _product_work(_products(shape, config, one), config.dtype, machine)
        total += replace(products, seconds=config.product_factor * products.seconds)
        low_rank = _product_work(_low_rank_products(shape, one, ranks), config.low_rank_dtype, machine)
        total += replace(low_rank, seconds=config.low_rank_factor * low_rank.seconds)
        n_bytes = TOUCHES * pass_bytes(shape, config, one, ranks)
        total += _Work(n_bytes=n_bytes, seconds=machine.activation_seconds(n_bytes))
        # a pass rounds its adapters' weights, and adds their gradients to those before: read, read, written, after they
        # were written once
        there = [rank for slots, rank in zip(one.slots, ranks, strict=False) if slots]
        n_bytes = (4 * config.gradient_bytes + config.rounding_bytes) * _trained(shape, config, there)
        total += _Work(n_bytes=n_bytes, seconds=machine.bytes_seconds(n_bytes))
        total += _Work(launches=_launches(shape, config, sum(slots > 0 for slots in one.slots)))
        total += _attention_work(shape, config, one, machine, share=1.0)
    n_bytes = _trained(shape, config, ranks) * config.update_bytes
    return total + _Work(n_bytes=n_bytes, seconds=machine.bytes_seconds(n_bytes))


def _product_work(products: Sequence[tuple[Product, float]], dtype: str, machine: Machine) -> _Work:
    return _Work(
        flops=sum(product.flops * count for product, count in products),
        n_bytes=sum(product.values * count for product, count in products) * VALUE_BYTES[dtype],
        seconds=sum(machine.product_seconds(product, dtype) * count for product, count in products),
    )


def _products(shape: ModelShape, config: TrainingConfig, one: MicroBatch) -> list[tuple[Product, float]]:
    """List the products with the base's weights: forward, and back to the inputs."""
    n = sum(one.slots)
    found: list[tuple[Product, float]] = []
    for part in shape.linears:
        found.append((Product(n, part.n_in, part.n_out, "nt"), part.count))
        found.append((Product(n, part.n_out, part.n_in, "nn"), part.count))
        if config.trains_base:
            found.append((Product(part.n_out, n, part.n_in, "tn"), part.count))
    found.append((Product(one.targets, shape.width, shape.vocabulary, "nt"), 1))
    found.append((Product(one.targets, shape.vocabulary, shape.width, "nn"), 1))
    if config.trains_base:
        found.append((Product(shape.vocabulary, one.targets, shape.width, "tn"), 1))
    return found


def _low_rank_products(shape: ModelShape, one: MicroBatch, ranks: Sequence[int]) -> list[tuple[Product, float]]:
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


def _attention_work(
    shape: ModelShape, config: TrainingConfig, one: MicroBatch, machine: Machine, *, share: float
) -> _Work:
    """Count attention's own products: two forward and five backward, over the half of the scores that is not masked."""
    flops = share * 7 * one.squares * shape.query_features
    return _Work(flops=flops, seconds=machine.attention_seconds(flops, config.dtype))


def _launches(shape: ModelShape, config: TrainingConfig, adapters: int) -> float:
    """Count operations of a pass, both directions. Transformers' own RMSNorm and rotary attention take many each."""
    norm = 2 if config.fused or not shape.wide_norms else 16
    block = (4 if config.fused else 30) + (2 if config.fused and shape.gated else 8)
    linears = sum(part.count for part in shape.linears)
    adapted = sum(part.count for part in shape.linears if part.adapted)
    return norm * shape.norms + block * shape.blocks + 2 * linears + config.adapter_launches * adapted * adapters


def _kept_bytes(shape: ModelShape, config: TrainingConfig) -> int:
    """Return what a pass keeps for each token until it goes back, adapters left out."""
    value = VALUE_BYTES[config.dtype]
    wide = shape.wide_norms and not config.fused
    norms = shape.norm_features * (max(value, 4) if wide else value)
    attention = (2 * shape.query_features + shape.key_value_features) * value + 4 * shape.heads
    own = shape.kept_by_activation + 2 * shape.gated
    feed_forward = shape.hidden_features * value * (2 if config.fused and shape.gated else own)
    inputs = shape.inputs if config.trains_base else shape.adapted_inputs
    return norms + attention + feed_forward + inputs * value


def pass_bytes(shape: ModelShape, config: TrainingConfig, one: MicroBatch, ranks: Sequence[int]) -> int:
    """Return what a pass keeps of its activations."""
    low_rank = sum(part.count for part in shape.linears if part.adapted)
    hidden = sum(n * rank for n, rank in zip(one.slots, ranks, strict=False)) * low_rank
    kept = _kept_bytes(shape, config) * sum(one.slots)
    scores = one.scores * shape.heads * VALUE_BYTES[config.dtype]
    if one.scores:  # which then take the place of attention's outputs
        kept -= (shape.query_features * VALUE_BYTES[config.dtype] + 4 * shape.heads) * sum(one.slots)
    return kept + scores + round(hidden * VALUE_BYTES[config.low_rank_dtype])


def slot_bytes(shape: ModelShape, config: TrainingConfig, rank: int) -> tuple[int, int]:
    """Return what the head holds at its largest, and what each further token of a pass keeps."""
    one = MicroBatch(slots=(1,), targets=0, squares=1)
    full = MicroBatch(slots=(1,), targets=config.chunk or 512, squares=1)
    return (
        _activation_bytes(shape, config, full, [rank]) - _activation_bytes(shape, config, one, [rank]),
        _activation_bytes(shape, config, one, [rank]),
    )


def _activation_bytes(shape: ModelShape, config: TrainingConfig, one: MicroBatch, ranks: Sequence[int]) -> int:
    """Return the most that a pass holds: all it keeps, with the head's logits or the last block's gradients on top."""
    value = VALUE_BYTES[config.dtype]
    at_once = one.targets if config.chunk is None else min(one.targets, config.chunk)
    # without kernels the loss makes log probabilities in float32, and their gradient in the base's precision
    logits = at_once * shape.vocabulary * (value if config.fused else 2 * value + 4)
    states = 2 * one.targets * shape.width * value
    block = sum(one.slots) * 3 * shape.hidden_features // max(1, shape.blocks) * value
    return round((1 + config.holes) * (pass_bytes(shape, config, one, ranks) + max(logits + states, block)))

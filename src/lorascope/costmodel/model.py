"""Analytical cost model of a training step: operations, memory traffic, seconds and peak memory, from shapes alone.

Principles (docs/decisions has the reasons, docs/numbers.md the definitions):

- A matrix product takes the time of its arithmetic or of its memory traffic, whichever is longer (the roofline model of
  Williams, Waterman and Patterson, CACM 2009). A low-rank product reads as much as a wide one and computes little, so
  that it costs nearly the same for all small ranks.
- Everything else is memory traffic: both directions touch saved activations, the update touches an adapter's weights.
- Every operation has to be launched. A GPU overlaps launches with work, a CPU does not.
- Memory peaks when the largest micro-batch has saved all its activations.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from lorascope.costmodel.cost_types import (
    CostPrediction,
    Hardware,
    Matmul,
    MemorySplit,
    MicroBatch,
    ModelShape,
    Step,
    TrainingConfig,
)
from lorascope.units import DTYPE_BYTES

_TOUCHES = 5
"""How often a saved activation moves through memory: written and read forward, read backward, its gradient written and
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
    hardware: Hardware,
    *,
    rest_bytes: int = 0,
) -> CostPrediction:
    """Predict the mean time of some steps and their highest peak memory.

    Args:
        shape: the model.
        config: how it is trained.
        steps: at least one.
        ranks: rank of each adapter, in the order of ``MicroBatch.slots``; none in full fine-tuning.
        hardware: speed of the device.
        rest_bytes: memory of neither the model nor its training.
    """
    works = [_step_work(shape, config, step, ranks, hardware) for step in steps]
    trained = _trained(shape, config, ranks)
    microbatches = [one for step in steps for one in step.microbatches]
    memory = MemorySplit(
        base_bytes=0 if config.trains_base else shape.base_bytes(config.dtype),
        adapter_bytes=trained * config.weight_bytes + _copied(shape, config, ranks) * config.copy_bytes,
        gradient_bytes=trained * config.gradient_bytes,
        optimizer_bytes=trained * config.optimizer_bytes,
        activation_bytes=max(_activation_bytes(shape, config, one, ranks) for one in microbatches),
        rest_bytes=rest_bytes,
    )
    return CostPrediction(
        trained_parameters=trained,
        step_seconds=fmean(_elapsed(work, hardware) for work in works),
        step_flops=fmean(work.flops for work in works),
        step_bytes=fmean(work.n_bytes for work in works),
        memory=memory if config.gradient_at_peak else _without_overlap(memory),
    )


def _trained(shape: ModelShape, config: TrainingConfig, ranks: Sequence[int]) -> int:
    return shape.parameters if config.trains_base else sum(map(shape.adapter_parameters, ranks))


def _copied(shape: ModelShape, config: TrainingConfig, ranks: Sequence[int]) -> int:
    """Count the parameters that have a copy: all of the base's, or the first values of each rank's matrices."""
    if config.trains_base:
        return shape.parameters
    return sum(shape.adapter_parameters(rank) - shape.whole_parameters for rank in set(ranks))


def _without_overlap(memory: MemorySplit) -> MemorySplit:
    """Drop the smaller of gradients and activations, which are never allocated at the same time."""
    smaller = "gradient_bytes" if memory.activation_bytes >= memory.gradient_bytes else "activation_bytes"
    return replace(memory, **{smaller: 0})


def forward_seconds(
    shape: ModelShape, config: TrainingConfig, microbatches: Sequence[MicroBatch], rank: int, hardware: Hardware
) -> float:
    """Predict the time of an evaluation: the forward half of each micro-batch."""
    total = _Work()
    for one in microbatches:
        for matmuls, dtype, factor in (
            (_base_matmuls(shape, config, one), config.dtype, config.matmul_factor),
            (_low_rank_matmuls(shape, one, [rank]), config.low_rank_dtype, config.low_rank_factor),
        ):
            total += _matmul_work([pair for pair in matmuls if pair[0].layout == "nt"], dtype, factor, hardware)
        n_bytes = 2 * _token_bytes(shape, config) * sum(one.slots)
        total += _Work(n_bytes=n_bytes, seconds=hardware.activation_seconds(n_bytes))
        total += _Work(launches=_launches(shape, config, 1) / 3)
        total += _attention_work(shape, config, one, hardware, share=2 / 7)
    return _elapsed(total, hardware)


def _elapsed(work: _Work, hardware: Hardware) -> float:
    launching = work.launches * hardware.launch_seconds
    return max(work.seconds, launching) if hardware.overlaps else work.seconds + launching


def _step_work(
    shape: ModelShape, config: TrainingConfig, step: Step, ranks: Sequence[int], hardware: Hardware
) -> _Work:
    total = _Work()
    for one in step.microbatches:
        total += _matmul_work(_base_matmuls(shape, config, one), config.dtype, config.matmul_factor, hardware)
        low_rank = _low_rank_matmuls(shape, one, ranks)
        total += _matmul_work(low_rank, config.low_rank_dtype, config.low_rank_factor, hardware)
        n_bytes = _TOUCHES * saved_bytes(shape, config, one, ranks)
        total += _Work(n_bytes=n_bytes, seconds=hardware.activation_seconds(n_bytes))
        if not config.trains_base:  # each direction reads packed weights, writes them unpacked and reads those
            n_bytes = round(2 * shape.packed * ((shape.weight_bits or 0) / 8 + DTYPE_BYTES[config.dtype]))
            total += _Work(n_bytes=n_bytes, seconds=hardware.bytes_seconds(n_bytes))
        # a micro-batch rounds its adapters' weights and accumulates their gradients: written, then read, read, written
        present = [rank for slots, rank in zip(one.slots, ranks, strict=False) if slots]
        n_bytes = (4 * config.gradient_bytes + config.rounding_bytes) * _trained(shape, config, present)
        total += _Work(n_bytes=n_bytes, seconds=hardware.bytes_seconds(n_bytes))
        total += _Work(launches=_launches(shape, config, sum(slots > 0 for slots in one.slots)))
        total += _attention_work(shape, config, one, hardware, share=1.0)
    n_bytes = _trained(shape, config, ranks) * config.update_bytes
    return total + _Work(n_bytes=n_bytes, seconds=hardware.bytes_seconds(n_bytes))


def _matmul_work(matmuls: Sequence[tuple[Matmul, float]], dtype: str, factor: float, hardware: Hardware) -> _Work:
    return _Work(
        flops=sum(matmul.flops * count for matmul, count in matmuls),
        n_bytes=sum(matmul.values * count for matmul, count in matmuls) * DTYPE_BYTES[dtype],
        seconds=factor * sum(hardware.matmul_seconds(matmul, dtype) * count for matmul, count in matmuls),
    )


def _base_matmuls(shape: ModelShape, config: TrainingConfig, one: MicroBatch) -> list[tuple[Matmul, float]]:
    """List the products with the base's weights: forward, and backward to the inputs."""
    n = sum(one.slots)
    layers = [(n, part.n_in, part.n_out, part.count) for part in shape.linears]
    found: list[tuple[Matmul, float]] = []
    for rows, n_in, n_out, count in [*layers, (one.targets, shape.width, shape.vocabulary, 1)]:
        found.append((Matmul(rows, n_in, n_out, "nt"), count))
        found.append((Matmul(rows, n_out, n_in, "nn"), count))
        if config.trains_base:
            found.append((Matmul(n_out, rows, n_in, "tn"), count))
    if shape.trained_head and not config.trains_base:  # its gradient, for which the logits are made again
        found.append((Matmul(one.targets, shape.width, shape.vocabulary, "nt"), 1))
        found.append((Matmul(shape.vocabulary, one.targets, shape.width, "tn"), 1))
    return found


def _low_rank_matmuls(shape: ModelShape, one: MicroBatch, ranks: Sequence[int]) -> list[tuple[Matmul, float]]:
    """List the six products of each adapter in each adapted layer, for its own rows."""
    found: list[tuple[Matmul, float]] = []
    for n, rank in zip(one.slots, ranks, strict=False):
        for part in shape.linears if n else ():
            if part.adapted:
                products = _adapter_matmuls(n, part.n_in, part.n_out, part.rank_here(rank))
                found += [(matmul, part.count) for matmul in products]
    return found


def _adapter_matmuls(n: int, n_in: int, n_out: int, rank: int) -> Iterator[Matmul]:
    yield Matmul(n, n_in, rank, "nt")  # h = x A^T
    yield Matmul(n, rank, n_out, "nt")  # y += h B^T
    yield Matmul(n, n_out, rank, "nn")  # dh = dy B
    yield Matmul(rank, n, n_in, "tn")  # dA = dh^T x
    yield Matmul(rank, n, n_out, "tn")  # dB^T = h^T dy
    yield Matmul(n, rank, n_in, "nn")  # dx += dh A


def _attention_work(
    shape: ModelShape, config: TrainingConfig, one: MicroBatch, hardware: Hardware, *, share: float
) -> _Work:
    """Count attention's two products forward and five backward, over the half of the scores that is not masked."""
    flops = share * 7 * one.squared_lengths * shape.query_features
    return _Work(flops=flops, seconds=hardware.attention_seconds(flops, config.dtype))


def _launches(shape: ModelShape, config: TrainingConfig, adapters: int) -> float:
    """Count the operations of a micro-batch, both directions. Eager RMSNorm and rotary attention take many each."""
    norm = 2 if config.fused or not shape.wide_norms else 16
    block = (4 if config.fused else 30) + (2 if config.fused and shape.gated else 8)
    linears = sum(part.count for part in shape.linears)
    adapted = sum(part.layers for part in shape.linears if part.adapted)
    return norm * shape.norms + block * shape.blocks + 2 * linears + config.adapter_launches * adapted * adapters


def _token_bytes(shape: ModelShape, config: TrainingConfig) -> int:
    """Return the bytes saved for backward per token, without those of adapters."""
    value = DTYPE_BYTES[config.dtype]
    wide = shape.wide_norms and not config.fused
    norms = shape.norm_features * (max(value, 4) if wide else value)
    attention = (2 * shape.query_features + shape.key_value_features) * value + 4 * shape.heads
    eager = shape.kept_by_activation + 2 * shape.gated
    feed_forward = shape.hidden_features * value * (2 if config.fused and shape.gated else eager)
    inputs = shape.inputs if config.trains_base else shape.adapted_inputs
    return norms + attention + feed_forward + inputs * value


def saved_bytes(shape: ModelShape, config: TrainingConfig, one: MicroBatch, ranks: Sequence[int]) -> int:
    """Return the bytes of activations that a micro-batch saves for backward."""
    hidden = sum(n * shape.low_rank_features(rank) for n, rank in zip(one.slots, ranks, strict=False))
    saved = _token_bytes(shape, config) * sum(one.slots)
    scores = one.kept_scores * shape.heads * DTYPE_BYTES[config.dtype]
    if one.kept_scores:  # in place of attention's outputs
        saved -= (shape.query_features * DTYPE_BYTES[config.dtype] + 4 * shape.heads) * sum(one.slots)
    return saved + scores + round(hidden * DTYPE_BYTES[config.low_rank_dtype])


def activation_growth(shape: ModelShape, config: TrainingConfig, rank: int) -> tuple[int, int]:
    """Return the bytes of the output head at its largest, and of each further token of a micro-batch."""
    one = MicroBatch(slots=(1,), targets=0, squared_lengths=1)
    full = one._replace(targets=config.chunk or 512)
    token = _activation_bytes(shape, config, one, [rank])
    return _activation_bytes(shape, config, full, [rank]) - token, token


def _activation_bytes(shape: ModelShape, config: TrainingConfig, one: MicroBatch, ranks: Sequence[int]) -> int:
    """Return the peak of activations: all that are saved, plus the head's logits or the last block's gradients."""
    value = DTYPE_BYTES[config.dtype]
    at_once = one.targets if config.chunk is None else min(one.targets, config.chunk)
    # without kernels the loss makes log probabilities in float32, and their gradient in the base's precision
    logits = at_once * shape.vocabulary * (value if config.fused and not shape.trained_head else 2 * value + 4)
    states = 2 * one.targets * shape.width * value
    block = sum(one.slots) * 3 * shape.hidden_features // max(1, shape.blocks) * value
    # a gradient of a whole module is made before it is accumulated
    whole = 0 if config.trains_base else max(shape.trained_embeddings, shape.trained_head) * config.gradient_bytes
    peak = max(logits + states, block) + whole
    return round((1 + config.heap_overhead) * (saved_bytes(shape, config, one, ranks) + peak))

"""Training configurations that the cost model compares: lorascope's own and full fine-tuning."""

from dataclasses import replace

from lorascope.costmodel.cost_types import TrainingConfig
from lorascope.modeling.backends.cpu.build import supports_bfloat16_matmul

_LOW_RANK_FACTOR = 1.35
"""Slowdown of an adapter's products within a step, where other operations have evicted the caches and results go to
pages that the kernel has yet to map: 1.3 to 1.4 on SmolLM2-135M, 1.2 to 2 on a model of OPT-350m's shape."""
_KERNEL_MATMUL_FACTOR = 0.62
_KERNEL_LOW_RANK_FACTOR = 1.6
"""The same for products of the compiled kernels, relative to the matrix library in isolation: the base's include
activations that are counted separately, an adapter's include masks and sums. Fitted to three rounds of SmolLM2-135M,
which they met to 3 %."""
_HEAP_OVERHEAD = 0.35
"""Memory that glibc's heap keeps between tensors of changing sizes, as a share of a micro-batch's activations: 0.26 to
0.48 for ranks 8 to 256 of SmolLM2-135M and of a model of OPT-350m's shape, where the kernel's high-water mark exceeded
all parts."""


def lorascope_config(dtype: str, *, kernels: bool, on_cpu: bool, from_base: bool = False) -> TrainingConfig:
    """Return how lorascope trains over a base in this precision; adapters are float32 at least.

    Adapters that start from the base's weights keep a copy of their first values.
    """
    low = dtype in {"bfloat16", "float16"}
    wide = 8 if dtype == "float64" else 4
    kernel_matmul = on_cpu and kernels and dtype == "bfloat16" and supports_bfloat16_matmul()
    low_rank_factor = _KERNEL_LOW_RANK_FACTOR if kernel_matmul else _LOW_RANK_FACTOR
    return TrainingConfig(
        dtype=dtype,
        low_rank_dtype=dtype,
        weight_bytes=wide,
        copy_bytes=wide if from_base else 0,
        gradient_bytes=wide,
        optimizer_bytes=2 * wide,
        update_bytes=44 * wide // 4,
        rounding_bytes=(4 if kernel_matmul else 12) if low else 0,
        adapter_launches=14 if low and not kernel_matmul else 10,
        fused=kernels,
        matmul_factor=_KERNEL_MATMUL_FACTOR if kernel_matmul else 1.0,
        low_rank_factor=low_rank_factor if on_cpu else 1.0,
        heap_overhead=_HEAP_OVERHEAD if on_cpu else 0.0,
    )


def full_finetuning_config(lora: TrainingConfig) -> TrainingConfig:
    """Return the usual full fine-tuning: float32 weights, gradients and AdamW, products in LoRA's precision."""
    low = lora.dtype in {"bfloat16", "float16"}
    copied, moved = (2, 6) if low else (0, 0)
    return replace(
        lora,
        copy_bytes=copied,
        update_bytes=lora.update_bytes + moved,
        rounding_bytes=0,
        fused=False,
        trains_base=True,
    )

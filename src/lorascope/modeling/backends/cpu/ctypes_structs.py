"""Arguments of the kernels: as dataclasses of tensors, and as the ctypes structures that C++ reads.

Shape legend: N tokens, n tokens of one adapter, I in_features, O out_features, R rank, F features of a head.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Self

import torch

from lorascope.modeling.packing.packed_layout import MicroBatchLayout

_BLOCK = 128
MULTIPLE = 32
"""Multiple of features, and of the slots where an adapter begins and ends, that the kernels' products take."""


@dataclass(frozen=True, kw_only=True, eq=False)
class KernelRows:
    """Rows of a micro-batch, or of a part of it: int64 on the CPU, one element a row."""

    starts: torch.Tensor
    """First slot, counted from the first slot of the tensors that are handed over."""
    lengths: torch.Tensor
    """Real tokens."""
    widths: torch.Tensor
    """Slots."""
    parents: torch.Tensor
    """Index of the row that holds a row's prefix, or -1. It stands before its children and has no parent itself."""

    @classmethod
    def end_to_end(cls, lengths: Sequence[int], widths: Sequence[int], parents: Sequence[int] | None = None) -> Self:
        """Lay rows end to end; without ``parents`` none has a prefix."""
        slots = torch.tensor(widths)
        return cls(
            starts=slots.cumsum(0) - slots,
            lengths=torch.tensor(lengths),
            widths=slots,
            parents=torch.tensor([-1] * len(lengths) if parents is None else parents),
        )

    def blocks(self, features: int) -> int:
        """Count the blocks of 128 elements that dropout's bits come in; every row begins one."""
        if features not in self._blocks:
            self._blocks[features] = int(((self.widths * features + _BLOCK - 1) // _BLOCK).sum())
        return self._blocks[features]

    @cached_property
    def _blocks(self) -> dict[int, int]:
        return {}


@lru_cache(maxsize=4)
def kernel_rows(layout: MicroBatchLayout) -> KernelRows:
    """Return the spans of a micro-batch as rows; cached, as every layer asks for them."""
    return KernelRows.end_to_end(layout.lengths, layout.widths, layout.parents)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Rotary:
    """Cosine and sine of each token's angles, [N, F] each, in the precision of the heads."""

    cosine: torch.Tensor
    sine: torch.Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AttentionPlan:
    """Which tokens attend to which, and how."""

    rows: KernelRows
    scaling: float
    """Factor of the scores."""
    window: int | None = None
    """Most tokens that a query attends to, its own included; None: all."""
    rotary: Rotary | None = None
    """Angles by which the kernel rotates queries and keys; None: it does not."""


class _HeadsStruct(ctypes.Structure):
    """An attention call; the fields are those of ``Heads`` in attention.hpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("rows", "starts", "lengths", "widths", "parents")),
        *((name, ctypes.c_int64) for name in ("heads", "kv_heads", "d", "q_stride", "k_stride", "v_stride", "window")),
        ("scale", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("q", "k", "v", "cosine", "sine")),
    )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LoraSegment:
    """One adapter in a layer and its slots of the micro-batch: y += factor * dropped(x) A^T B^T."""

    slots: slice
    factor: float
    A: torch.Tensor
    """[R, I], float32, rounded where it is multiplied."""
    B: torch.Tensor
    """[O, R], float32."""
    hidden: torch.Tensor
    """factor * dropped(x) A^T [n, R filled up to a multiple of 32], bfloat16, which the forward pass writes."""
    gradients: tuple[torch.Tensor, torch.Tensor] | None = None
    """Of A and B, float32, to which the backward pass adds."""
    dropout: tuple[KernelRows, torch.Tensor] | None = None
    """The rows of these slots and which inputs are kept, as ``dropout_bits`` gives them; None: all."""


class _SegmentStruct(ctypes.Structure):
    """A segment; the fields are those of ``LoraSegment`` in lora_gemm.hpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("first", "slots", "rank")),
        ("factor", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("a", "b", "hidden", "da", "db")),
        ("rows", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("widths", "kept")),
    )


class _LinearStruct(ctypes.Structure):
    """A frozen layer; the fields are those of ``Linear`` in lora_gemm.hpp."""

    _fields_ = (
        ("out", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "y", "residual")),
        ("n_segments", ctypes.c_int64),
        ("segments", ctypes.POINTER(_SegmentStruct)),
    )


def compute_dtype(x: torch.Tensor) -> torch.dtype:
    """Return the precision that the kernels compute in."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def described_layers(
    outputs: Sequence[torch.Tensor],
    weights: Sequence[tuple[torch.Tensor, torch.Tensor | None]],
    segments: Sequence[Sequence[LoraSegment]],
) -> ctypes.Array[Any]:
    """Describe frozen layers with one input; outputs, or their gradients, of a residual stream are float32."""
    described = []
    for y, (weight, bias), own in zip(outputs, weights, segments, strict=True):
        places = (y.data_ptr(), None) if y.dtype == weight.dtype else (None, y.data_ptr())
        frozen = (weight.data_ptr(), None if bias is None else bias.data_ptr(), *places)
        described.append(
            _LinearStruct(weight.shape[0], *frozen, len(own), (_SegmentStruct * len(own))(*map(_segment_struct, own)))
        )
    return (_LinearStruct * len(described))(*described)


def _segment_struct(segment: LoraSegment) -> _SegmentStruct:
    assert segment.slots.start % MULTIPLE == segment.slots.stop % MULTIPLE == 0
    assert segment.A.dtype == segment.B.dtype == torch.float32
    gradients = (None, None) if segment.gradients is None else [grad.data_ptr() for grad in segment.gradients]
    rows, widths, bits = 0, None, None
    if segment.dropout is not None:
        where, kept = segment.dropout
        rows, widths, bits = where.widths.shape[0], where.widths.data_ptr(), kept.data_ptr()
    return _SegmentStruct(
        segment.slots.start, segment.slots.stop - segment.slots.start, segment.A.shape[0], segment.factor,
        segment.A.data_ptr(), segment.B.data_ptr(), segment.hidden.data_ptr(), *gradients, rows, widths, bits,
    )  # fmt: skip


def described_heads(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, plan: AttentionPlan) -> ctypes.Structure:
    """Describe heads [N, H or K, F] and which tokens attend to which."""
    (_, n_heads, features), n_kv_heads = q.shape, k.shape[1]
    for x in (q, k, v):
        assert x.stride()[1:] == (features, 1), "the heads of a token must be adjacent"
    angles = () if plan.rotary is None else (plan.rotary.cosine, plan.rotary.sine)
    assert all(x.dtype == q.dtype and x.is_contiguous() for x in angles)
    rows = plan.rows
    return _HeadsStruct(
        rows.starts.shape[0], *(part.data_ptr() for part in (rows.starts, rows.lengths, rows.widths, rows.parents)),
        n_heads, n_kv_heads, features, q.stride(0), k.stride(0), v.stride(0), plan.window or 0, plan.scaling,
        *(x.data_ptr() for x in (q, k, v, *angles)),
    )  # fmt: skip

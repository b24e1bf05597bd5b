"""Linear layers with one input and their adapters, all products made by the compiled kernels.

Shape legend: N slots of the micro-batch, n slots of a segment, I in_features, O out_features, R rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import nn

from lorascope.modeling.adapters.linear_kinds.dense import is_unmodified
from lorascope.modeling.backends.cpu.bindings import Kernels
from lorascope.modeling.backends.cpu.ctypes_structs import MULTIPLE, LoraSegment
from lorascope.modeling.backends.cpu.dropout import KernelDropout
from lorascope.modeling.backends.protocol import AdaptedLinear, Segment


def supports_multi_lora(kernels: Kernels, layers: Sequence[AdaptedLinear], x_NI: torch.Tensor) -> bool:
    """Return True if the kernels can make all products of these layers."""
    bases = [base for base in _bases(layers) if is_unmodified(base, nn.Linear)]
    tensors = [tensor for base in bases for tensor in (base.weight, base.bias)]
    slots = [segment.slots for layer in layers for segment in layer.segments]
    aligned = all(bound % MULTIPLE == 0 for own in slots for bound in (own.start, own.stop))
    return len(bases) == len(layers) and aligned and kernels.supports_matmul(x_NI, *tensors)


@dataclass(frozen=True, slots=True, eq=False)
class KernelMultiLora:
    """Both directions; keeps factor * dropped(x) A^T of each segment, [n, R filled up to a multiple of 32]."""

    kernels: Kernels
    layers: Sequence[AdaptedLinear]

    def forward(self, x_NI: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return the output of each layer, [N, O], and what is kept."""
        segments = chain.from_iterable(layer.segments for layer in self.layers)
        kept = [self.kernels.hidden(x_NI, s.slots.stop - s.slots.start, s.adapter.A.shape[0]) for s in segments]
        weights = [(base.weight, base.bias) for base in _bases(self.layers)]
        return self.kernels.linear_forward(x_NI, weights, self._described(x_NI, kept)), kept

    def backward(
        self, x_NI: torch.Tensor, kept: Sequence[torch.Tensor], grads_NO: Sequence[torch.Tensor], *, wants_dx: bool
    ) -> tuple[torch.Tensor | None, list[None]]:
        """Return dx if it is wanted; add to the gradients of A and B where they are."""
        weights = [base.weight for base in _bases(self.layers)]
        dx_NI = self.kernels.adapted_backward(x_NI, weights, grads_NO, self._described(x_NI, kept), wants_dx=wants_dx)
        return dx_NI, [None] * (2 * len(kept))

    def _described(self, x_NI: torch.Tensor, kept: Sequence[torch.Tensor]) -> list[list[LoraSegment]]:
        hidden = iter(kept)
        return [[_described(s, next(hidden), x_NI.shape[1]) for s in layer.segments] for layer in self.layers]


def _bases(layers: Sequence[AdaptedLinear]) -> list[nn.Linear]:
    return [layer.base for layer in layers if isinstance(layer.base, nn.Linear)]


def _described(segment: Segment, h_nR: torch.Tensor, features: int) -> LoraSegment:
    adapter, dropout = segment.adapter, segment.dropout
    assert dropout is None or isinstance(dropout, KernelDropout)
    return LoraSegment(
        slots=segment.slots,
        factor=segment.factor,
        A=adapter.A,
        B=adapter.B,
        hidden=h_nR,
        gradients=None if adapter.A.grad is None or adapter.B.grad is None else (adapter.A.grad, adapter.B.grad),
        dropout=None if dropout is None else (dropout.rows.rows, dropout.kept_bits(features)),
    )

"""Linear layers with one input and their adapters in Torch's operations.

Shape legend: N slots of the micro-batch, n slots of a segment, I in_features, O out_features, R rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from lorascope.modeling.adapters.linear_kinds.dense import DENSE_TYPES, is_unmodified
from lorascope.modeling.backends.protocol import AdaptedLinear, Segment

_ROUNDED = {torch.bfloat16, torch.float16}
"""Precisions in which the update and the frozen product are one product, rounded once."""


@dataclass(frozen=True, slots=True, eq=False)
class TorchMultiLora:
    """Both directions; keeps dropped(x) A^T of each segment, [n, R]."""

    layers: Sequence[AdaptedLinear]

    def forward(self, x_NI: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return the output of each layer, [N, O], and what is kept."""
        outputs, kept = [], []
        for layer in self.layers:
            hidden = [_dropped(segment, x_NI) @ segment.adapter.A.to(x_NI.dtype).T for segment in layer.segments]
            outputs.append(_updated(layer, hidden, x_NI))
            kept += hidden
        return outputs, kept

    def backward(
        self, x_NI: torch.Tensor, kept: Sequence[torch.Tensor], grads_NO: Sequence[torch.Tensor], *, wants_dx: bool
    ) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
        """Return dx if it is wanted, and the gradients of A and B of each segment in turn."""
        dx_NI: torch.Tensor | None = None
        for layer, dy_NO in zip(self.layers if wants_dx else (), grads_NO, strict=wants_dx):
            dx_NI = layer.kind.add_input_gradient(layer.base, dy_NO, dx_NI)
        leaf_grads: list[torch.Tensor] = []
        hidden = iter(kept)
        for layer, dy_NO in zip(self.layers, grads_NO, strict=True):
            for segment in layer.segments:
                leaf_grads += _leaf_gradients(segment, next(hidden), x_NI, dy_NO, dx_NI)
        return dx_NI, leaf_grads


def _dropped(segment: Segment, x_NI: torch.Tensor) -> torch.Tensor:
    x_nI = x_NI[segment.slots]
    return x_nI if segment.dropout is None else segment.dropout.dropped(x_nI)


def _updated(layer: AdaptedLinear, hidden: Sequence[torch.Tensor], x_NI: torch.Tensor) -> torch.Tensor:
    """Return the base layer's output with the update of each segment."""
    weight_OI = layer.kind.weight(layer.base)
    if x_NI.dtype in _ROUNDED and weight_OI is not None and is_unmodified(layer.base, *DENSE_TYPES):
        return _updated_before_rounding(layer, weight_OI, hidden, x_NI)
    y_NO: torch.Tensor = layer.base(x_NI)
    for segment, h_nR in zip(layer.segments, hidden, strict=True):
        y_NO[segment.slots].addmm_(h_nR, segment.adapter.B.to(h_nR.dtype).T, alpha=segment.factor)
    return y_NO


def _updated_before_rounding(
    layer: AdaptedLinear, weight_OI: torch.Tensor, hidden: Sequence[torch.Tensor], x_NI: torch.Tensor
) -> torch.Tensor:
    """Return the same from one product of [x, h] with [W, B]: a small update of a rounded y would be rounded away."""
    bias: torch.Tensor | None = getattr(layer.base, "bias", None)
    if x_NI.device.type == "cuda":
        return _updated_in_float32(layer, weight_OI, bias, hidden, x_NI)
    pieces, end = [], 0
    for segment, h_nR in zip(layer.segments, hidden, strict=True):
        inputs = torch.cat([x_NI[segment.slots], segment.factor * h_nR], dim=1)
        weights = torch.cat([weight_OI, segment.adapter.B.to(x_NI.dtype)], dim=1)
        pieces += [layer.base(x_NI[end : segment.slots.start]), F.linear(inputs, weights, bias)]
        end = segment.slots.stop
    return torch.cat([*pieces, layer.base(x_NI[end:])])


def _updated_in_float32(
    layer: AdaptedLinear,
    weight_OI: torch.Tensor,
    bias: torch.Tensor | None,
    hidden: Sequence[torch.Tensor],
    x_NI: torch.Tensor,
) -> torch.Tensor:
    """Return the same from one frozen product with a float32 result, which CPUs do not offer; no weight is copied."""
    y_NO = torch.mm(x_NI, weight_OI.T, out_dtype=torch.float32)
    if bias is not None:
        y_NO.add_(bias)
    for segment, h_nR in zip(layer.segments, hidden, strict=True):
        own_nO = y_NO.narrow(0, segment.slots.start, len(h_nR))
        own_nO.addmm_(h_nR.float(), segment.adapter.B.float().T, alpha=segment.factor)
    return y_NO.to(x_NI.dtype)


def _leaf_gradients(
    segment: Segment, h_nR: torch.Tensor, x_NI: torch.Tensor, dy_NO: torch.Tensor, dx_NI: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients of A and B; add what flows back through the adapter to dx, if there is one."""
    adapter, dy_nO = segment.adapter, dy_NO[segment.slots]
    dh_nR = (dy_nO @ adapter.B.to(dy_nO.dtype)).mul_(segment.factor)
    dA = (dh_nR.T @ _dropped(segment, x_NI)).to(adapter.A.dtype)
    # the transpose of dy^T h, in the order that the matrix library is quicker at
    dB = (h_nR.T @ dy_nO).to(adapter.B.dtype).mul_(segment.factor).T
    if dx_NI is not None:
        dx_nI = dx_NI[segment.slots]
        if segment.dropout is None:
            dx_nI.addmm_(dh_nR, adapter.A.to(dh_nR.dtype))
        else:
            segment.dropout.add_dropped_(dx_nI, dh_nR @ adapter.A.to(dh_nR.dtype))
    return dA, dB

"""Adapters of different rank, alpha and dropout on one frozen linear layer, each on its own rows of the pass.

LoRA (Hu et al. 2021, arXiv 2106.09685, section 4.1): y = x W^T + b + scale * dropout(x) A^T B^T, A [r, in], B [out, r].

Shape legend: N slots of the pass, n slots of one adapter's rows, I in_features, O out_features, R rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from lorascope.errors import InputError
from lorascope.modeling.adapters.dropout import Dropout, realised_probability
from lorascope.modeling.backends.cpu.autograd import is_plain
from lorascope.modeling.backends.cpu.bindings import Kernels
from lorascope.modeling.backends.cpu.ctypes_structs import MULTIPLE, LoraPart
from lorascope.modeling.packing.packed_layout import current_microbatch


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerAdapter:
    """One adapter's part in one layer."""

    A: torch.Tensor
    """[R, I], the trained weight, a leaf."""
    B: torch.Tensor
    """[O, R]"""
    scale: float
    dropout: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Segment:
    """Slots of the pass that one adapter works on."""

    adapter: LayerAdapter
    slots: slice
    dropout: Dropout | None

    @property
    def factor(self) -> float:
        """Return the scale of the update, with the 1 / (1 - p) that keeps its mean."""
        keep = 1.0 if self.dropout is None else 1.0 - realised_probability(self.adapter.dropout)
        return self.adapter.scale / keep

    def dropped(self, x_NI: torch.Tensor) -> torch.Tensor:
        """Return this segment's inputs after dropout, unscaled."""
        x_nI = x_NI[self.slots]
        return x_nI if self.dropout is None else self.dropout.dropped(x_nI)

    def add_input_grad_(self, dx_NI: torch.Tensor, dh_nR: torch.Tensor) -> None:
        """Add what flows back through this segment's adapter to the gradient of the inputs."""
        dx_nI = dx_NI[self.slots]
        if self.dropout is None:
            dx_nI.addmm_(dh_nR, self.adapter.A.to(dh_nR.dtype))
        else:
            self.dropout.add_dropped_(dx_nI, dh_nR @ self.adapter.A.to(dh_nR.dtype))


class _MultiLora(torch.autograd.Function):
    """y = base(x) + the update of each segment, for layers with one input; stores no gradient that nobody needs."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - the type of autograd's context is private to torch
        x: torch.Tensor,
        layers: Sequence["MultiLoraLinear"],
        segments: Sequence[Sequence[Segment]],
        *leaves: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        del leaves  # they are here so that autograd routes their gradients; the values come with the segments
        active = current_microbatch()
        assert active is not None
        x_NI = x.flatten(0, -2).contiguous()
        kernels = _matmul_kernels(active.kernels, layers, segments, x_NI)
        outputs: Sequence[torch.Tensor]
        if kernels is not None:
            hidden = [
                kernels.hidden(x_NI, s.slots.stop - s.slots.start, s.adapter.A.shape[0]) for s in chain(*segments)
            ]
            weights = [(layer.weight, layer.base.bias) for layer in layers]
            outputs = kernels.linear_forward(x_NI, weights, _parts(kernels, segments, hidden, x_NI.shape[1]))
        else:
            hidden, outputs = [], []
            for layer, own in zip(layers, segments, strict=True):
                own_hidden = [segment.dropped(x_NI) @ segment.adapter.A.to(x_NI.dtype).T for segment in own]
                outputs.append(_updated(layer.base, own, own_hidden, x_NI))
                hidden += own_hidden
        ctx.segments, ctx.kernels, ctx.shape, ctx.check_stop = segments, kernels, x.shape, active.check_stop
        ctx.save_for_backward(x_NI, *[layer.weight for layer in layers], *hidden)
        return tuple(y_NO.view(*x.shape[:-1], -1) for y_NO in outputs)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        ctx.check_stop()
        x_NI, *rest = ctx.saved_tensors
        weights, hidden = rest[: len(grads)], rest[len(grads) :]
        grads_NO, wants_dx = [dy.flatten(0, -2) for dy in grads], ctx.needs_input_grad[0]
        leaf_grads: list[torch.Tensor | None] = []
        if ctx.kernels is not None:
            parts = _parts(ctx.kernels, ctx.segments, hidden, x_NI.shape[1])
            dx_NI = ctx.kernels.adapted_backward(x_NI, weights, grads_NO, parts, wants_dx=wants_dx)
            leaf_grads += [None] * (2 * len(hidden))  # they are added where they are gathered
        else:
            dx_NI = _input_gradient(weights, grads_NO) if wants_dx else None
            for dy_NO, own in zip(grads_NO, ctx.segments, strict=True):
                hidden, own_hidden = hidden[len(own) :], hidden[: len(own)]
                leaf_grads += _gradients(own, own_hidden, (x_NI, dy_NO, dx_NI))
        dx = None if dx_NI is None else dx_NI.view(ctx.shape)
        return dx, None, None, *leaf_grads


def _matmul_kernels(
    kernels: Kernels | None,
    layers: Sequence["MultiLoraLinear"],
    segments: Sequence[Sequence[Segment]],
    x_NI: torch.Tensor,
) -> Kernels | None:
    """Return the kernels if they can make all products of these layers."""
    bases = [layer.base for layer in layers if is_plain(layer.base, nn.Linear)]
    tensors = [tensor for base in bases for tensor in (base.weight, base.bias)]
    bounds = [bound for segment in chain(*segments) for bound in (segment.slots.start, segment.slots.stop)]
    fits = len(bases) == len(layers) and all(bound % MULTIPLE == 0 for bound in bounds)
    return kernels if fits and kernels is not None and kernels.supports_matmul(x_NI, *tensors) else None


def _parts(
    kernels: Kernels, segments: Sequence[Sequence[Segment]], hidden: Sequence[torch.Tensor], features: int
) -> list[list[LoraPart]]:
    """Describe the segments of each layer to the kernels; ``hidden`` are those of one layer after the other."""
    memory = iter(hidden)
    return [[_part(kernels, segment, next(memory), features) for segment in own] for own in segments]


def _part(kernels: Kernels, segment: Segment, h_nR: torch.Tensor, features: int) -> LoraPart:
    adapter, dropout = segment.adapter, segment.dropout
    return LoraPart(
        slots=segment.slots,
        factor=segment.factor,
        A=adapter.A,
        B=adapter.B,
        hidden=h_nR,
        gradients=None if adapter.A.grad is None or adapter.B.grad is None else (adapter.A.grad, adapter.B.grad),
        dropout=None if dropout is None else (dropout.rows.rows, dropout.kept_bits(kernels, features)),
    )


def _updated(
    base: nn.Linear | Conv1D, segments: Sequence[Segment], hidden: Sequence[torch.Tensor], x_NI: torch.Tensor
) -> torch.Tensor:
    """Return the base layer's output with each segment's update, from what the A of each makes of its inputs."""
    if x_NI.dtype not in {torch.bfloat16, torch.float16} or not is_plain(base, nn.Linear, Conv1D):
        y_NO: torch.Tensor = base(x_NI)
        for segment, h_nR in zip(segments, hidden, strict=True):
            y_NO[segment.slots].addmm_(h_nR, segment.adapter.B.to(h_nR.dtype).T, alpha=segment.factor)
        return y_NO
    # one product of both, which is rounded once: added to a rounded y, most of a small update is rounded away
    pieces, at = [], 0
    for segment, h_nR in zip(segments, hidden, strict=True):
        inputs = torch.cat([x_NI[segment.slots], segment.factor * h_nR], dim=1)
        weights = torch.cat([frozen_weight(base), segment.adapter.B.to(x_NI.dtype)], dim=1)
        pieces += [base(x_NI[at : segment.slots.start]), F.linear(inputs, weights, base.bias)]
        at = segment.slots.stop
    return torch.cat([*pieces, base(x_NI[at:])])


def _input_gradient(weights: Sequence[torch.Tensor], grads_NO: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return what flows back through the frozen weights."""
    dx_NI = grads_NO[0] @ weights[0]
    for dy_NO, weight_OI in zip(grads_NO[1:], weights[1:], strict=True):
        dx_NI.addmm_(dy_NO, weight_OI)
    return dx_NI


def _gradients(
    segments: Sequence[Segment],
    hidden: Sequence[torch.Tensor],
    tensors: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None],
) -> list[torch.Tensor | None]:
    """Add what flows back through each segment to dx of ``(x, dy, dx)``; return the gradients of A and B in turn."""
    x_NI, dy_NO, dx_NI = tensors
    leaf_grads: list[torch.Tensor | None] = []
    for segment, h_nR in zip(segments, hidden, strict=True):
        adapter, dy_nO = segment.adapter, dy_NO[segment.slots]
        dh_nR = (dy_nO @ adapter.B.to(dy_nO.dtype)).mul_(segment.factor)
        leaf_grads.append((dh_nR.T @ segment.dropped(x_NI)).to(adapter.A.dtype))
        # the transpose of dy^T h, in the order that the matrix library is quicker at
        leaf_grads.append((h_nR.T @ dy_nO).to(adapter.B.dtype).mul_(segment.factor).T)
        if dx_NI is not None:
            segment.add_input_grad_(dx_NI, dh_nR)
    return leaf_grads


def adapted(layers: Sequence["MultiLoraLinear"], x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the output of each of some layers for one input, whose gradient is then added up once for all of them."""
    segments = [layer.segments(x) for layer in layers]
    if not any(segments):
        return tuple(layer.base(x) for layer in layers)
    leaves = [leaf for own in segments for segment in own for leaf in (segment.adapter.A, segment.adapter.B)]
    outputs: tuple[torch.Tensor, ...] = _MultiLora.apply(x, layers, segments, *leaves)
    return outputs


class MultiLoraLinear(nn.Module):
    """A frozen ``nn.Linear`` or GPT-2 ``Conv1D`` with any number of adapters.

    Which adapter works on which rows is read from the current pass; outside of a pass, or for base-only rows, the
    layer gives the base layer's own result.
    """

    def __init__(self, base: nn.Linear | Conv1D) -> None:
        super().__init__()
        self.base = base
        self.adapters: list[LayerAdapter] = []

    @property
    def weight(self) -> torch.Tensor:
        """Return the base weight as [O, I]."""
        return frozen_weight(self.base)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [..., O] for [..., I]; the leading dimensions flatten to the slots of the current pass."""
        return adapted([self], x)[0]

    def segments(self, x: torch.Tensor) -> list[Segment]:
        """Return which slots of the current pass each adapter works on, with the dropout that this call draws.

        Raises:
            InputError: the layer sees only some of the pass's tokens.
        """
        active = current_microbatch()
        if active is None:
            return []
        active.check_stop()
        layout = active.layout
        if x.numel() != layout.n_slots * x.shape[-1]:
            raise InputError(
                f"a target layer of the model sees {x.numel() // x.shape[-1]} of the {layout.n_slots} tokens of a pass",
                remedy="leave layers that see selected tokens only (routed experts) out of target_modules",
            )
        adapters = [self.adapters[index] for index, _, _ in layout.segments]
        streams = active.streams if any(adapter.dropout > 0 for adapter in adapters) else None
        draw = 0 if streams is None else streams.next_draw()
        found = []
        for adapter, (_, first, stop) in zip(adapters, layout.segments, strict=True):
            dropout = None
            if streams is not None and adapter.dropout > 0:
                dropout = streams.rows(first, stop).at(draw, adapter.dropout)
            found.append(Segment(adapter=adapter, slots=layout.slots(first, stop), dropout=dropout))
        return found


def frozen_weight(base: nn.Linear | Conv1D) -> torch.Tensor:
    """Return the weight as [O, I] (a view for Conv1D, which stores [I, O])."""
    return base.weight.T if isinstance(base, Conv1D) else base.weight


def linear_features(base: nn.Linear | Conv1D) -> tuple[int, int]:
    """Return (in_features, out_features)."""
    if isinstance(base, Conv1D):
        return base.weight.shape[0], base.weight.shape[1]
    return base.in_features, base.out_features

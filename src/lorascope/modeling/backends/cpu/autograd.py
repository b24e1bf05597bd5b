"""Autograd operations made of the kernels: what each keeps for its backward pass."""

from typing import Any

import torch
from torch import nn

from lorascope.errors import UnsupportedModelError
from lorascope.modeling.adapters.linear_kinds.dense import is_unmodified
from lorascope.modeling.backends.cpu.bindings import Kernels
from lorascope.modeling.backends.cpu.ctypes_structs import AttentionPlan, Rotary, kernel_rows
from lorascope.modeling.packing.packed_layout import MicroBatchLayout


class RmsNorm(torch.autograd.Function):
    """x / rms(x) * weight with a frozen weight; keeps x and one number a token."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float, kernels: Kernels) -> torch.Tensor:  # noqa: ANN401
        """Return x / rms(x) * weight, [..., D]."""
        y, inverse = kernels.rms_norm_forward(x, weight, eps)
        ctx.kernels = kernels
        ctx.save_for_backward(x, weight, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:  # noqa: ANN401
        """Return the gradient with respect to x."""
        return ctx.kernels.rms_norm_backward(*ctx.saved_tensors, grads[0]), None, None, None


class ResidualNorm(torch.autograd.Function):
    """The norm of a float32 residual stream, and the stream itself, whose gradient is added to in place.

    Operations change the stream in place, forward and backward; none keeps it.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        residual: torch.Tensor,
        weight: torch.Tensor,
        eps: float,
        kernels: Kernels,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return x / rms(x) * weight, [..., D] in the weight's precision, and x."""
        y, kept, inverse = kernels.residual_norm_forward(residual, weight, eps)
        ctx.kernels = kernels
        ctx.save_for_backward(kept, weight, inverse)
        ctx.mark_dirty(residual)  # it is the same tensor afterwards, not a view of it
        return y, residual

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:  # noqa: ANN401
        """Return the gradient with respect to x, both ways added up."""
        dy, dresidual = grads
        ctx.kernels.add_residual_norm_backward_(dresidual, *ctx.saved_tensors, dy)
        return dresidual, None, None, None


class SiluMul(torch.autograd.Function):
    """silu(gate) * up; keeps gate and up."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor, kernels: Kernels) -> torch.Tensor:  # noqa: ANN401
        """Return silu(gate) * up, [..., D]."""
        ctx.kernels = kernels
        ctx.save_for_backward(gate, up)
        return kernels.silu_mul_forward(gate, up)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:  # noqa: ANN401
        """Return the gradients with respect to gate and up."""
        return *ctx.kernels.silu_mul_backward(*ctx.saved_tensors, grads[0]), None


class FrozenForward:
    """The forward of a frozen ``nn.Linear`` whose product the kernels make."""

    computes_own_product = True
    """Says that the layer is still an unmodified ``nn.Linear``."""

    def __init__(self, layer: nn.Linear, kernels: Kernels) -> None:
        self._layer, self._kernels, self._own = layer, kernels, layer.forward

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return x W^T + b, [..., O]."""
        if not self._kernels.supports_matmul(x):
            return self._own(x)
        product: torch.Tensor = FrozenProduct.apply(x, self._layer, self._kernels, None)
        return product


class FrozenProduct(torch.autograd.Function):
    """x W^T + b with a frozen weight, added to a float32 residual stream if there is one; keeps the weight alone."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: torch.Tensor,
        layer: nn.Linear,
        kernels: Kernels,
        residual: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return x W^T + b, [..., O], or the residual stream with it."""
        ctx.kernels, ctx.shape = kernels, x.shape
        ctx.save_for_backward(layer.weight)
        if residual is None:
            (y,) = kernels.linear_forward(x.flatten(0, -2), [(layer.weight, layer.bias)])
            return y.view(*x.shape[:-1], -1)
        kernels.add_linear_(residual, x.flatten(0, -2), layer.weight, layer.bias)
        ctx.mark_dirty(residual)
        return residual

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        """Return the gradient with respect to x, and that of the residual stream as it is."""
        dx = ctx.kernels.linear_backward(ctx.saved_tensors, [grads[0].flatten(0, -2)]).view(ctx.shape)
        return dx, None, None, grads[0] if ctx.needs_input_grad[3] else None


def supports_gated_matmul(kernels: Kernels, x: torch.Tensor, gate: nn.Linear, up: nn.Linear, down: nn.Linear) -> bool:
    """Return True if the kernels can make all products of a gated layer without biases inside."""
    plain = all(is_unmodified(part, nn.Linear) for part in (gate, up, down)) and gate.bias is None and up.bias is None
    return plain and kernels.supports_matmul(x, gate.weight, up.weight, down.weight, down.bias)


class GatedFeedForward(torch.autograd.Function):
    """down(silu(gate(x)) * up(x)) with frozen weights, added to a float32 residual stream if there is one.

    Keeps the outputs of gate and up.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd functions take positional arguments only
        ctx: Any,  # noqa: ANN401
        x: torch.Tensor,
        gate: nn.Linear,
        up: nn.Linear,
        down: nn.Linear,
        kernels: Kernels,
        residual: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return down(silu(gate(x)) * up(x)), [..., D], or the residual stream with it."""
        ctx.kernels = kernels
        ctx.own = supports_gated_matmul(kernels, x, gate, up, down)
        if ctx.own:
            weights = (gate.weight, up.weight, down.weight)
            into = None if residual is None else residual.flatten(0, -2)
            gated, raised, y = kernels.gated_forward(x.flatten(0, -2), weights, down.bias, into)
            if residual is not None:
                ctx.mark_dirty(residual)
            y = y.view(*x.shape[:-1], -1) if residual is None else residual
        else:
            assert residual is None
            gated, raised = gate(x), up(x)
            y = down(kernels.silu_mul_forward(gated, raised))
        ctx.save_for_backward(gated, raised, gate.weight, up.weight, down.weight)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        """Return the gradient with respect to x, that of both projections added up, and the residual stream's own."""
        gated, raised, gate, up, down = ctx.saved_tensors
        if ctx.own:
            dx = ctx.kernels.gated_backward(grads[0].flatten(0, -2), (gate, up, down), gated, raised)
            dx = dx.view(*grads[0].shape[:-1], -1)
            return dx, None, None, None, None, grads[0] if ctx.needs_input_grad[5] else None
        dgated, draised = ctx.kernels.silu_mul_backward(gated, raised, grads[0] @ down)
        dx = (dgated @ gate).flatten(0, -2)
        dx.addmm_(draised.flatten(0, -2), up)
        return dx.view(*gated.shape[:-1], -1), None, None, None, None, None


class RowAttention(torch.autograd.Function):
    """Causal attention inside each row; keeps its inputs, its output and one number a query."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd functions take positional arguments only
        ctx: Any,  # noqa: ANN401
        q_NHF: torch.Tensor,
        k_NKF: torch.Tensor,
        v_NKF: torch.Tensor,
        plan: AttentionPlan,
        kernels: Kernels,
    ) -> torch.Tensor:
        """Return [N, H, F]."""
        out, log_sums = kernels.attention_forward(q_NHF, k_NKF, v_NKF, plan)
        ctx.plan, ctx.kernels = plan, kernels
        ctx.save_for_backward(q_NHF, k_NKF, v_NKF, out, log_sums)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        """Return the gradients with respect to q, k and v."""
        q, k, v, out, log_sums = ctx.saved_tensors
        return *ctx.kernels.attention_backward((q, k, v), ctx.plan, out, log_sums, grads[0]), None, None


def attend(
    kernels: Kernels,
    heads: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    layout: MicroBatchLayout,
    *,
    scaling: float,
    window: int | None,
    rotary: Rotary | None = None,
) -> torch.Tensor:
    """Attend causally inside each row of a packed micro-batch, [N, H, F]; see ``Backend.attend``.

    Raises:
        UnsupportedModelError: keys and values have other shapes.
    """
    q, k, v = (x.flatten(1).view(x.shape) for x in heads)
    if k.shape != v.shape or q.shape[1] % k.shape[1]:
        raise UnsupportedModelError(f"{q.shape[1]} queries, keys {list(k.shape)} and values {list(v.shape)}")
    plan = AttentionPlan(rows=kernel_rows(layout), scaling=scaling, window=window, rotary=rotary)
    attended: torch.Tensor = RowAttention.apply(q, k, v, plan, kernels)
    return attended

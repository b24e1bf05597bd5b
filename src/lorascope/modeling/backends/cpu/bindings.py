"""The compiled kernels as functions of tensors.

Shape legend: N tokens, D features, C tokens of a chunk, V vocabulary, H heads, K key-value heads, F features of a head.
"""

import ctypes
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from lorascope.errors import UnsupportedModelError
from lorascope.modeling.backends.cpu.ctypes_structs import (
    MULTIPLE,
    AttentionPlan,
    KernelRows,
    LoraSegment,
    compute_dtype,
    described_heads,
    described_layers,
)
from lorascope.modeling.backends.cpu.matmul_hooks import KernelProduct, backward_product, emit, forward_product

_WORDS = 8
"""Words of 16 bits for one block of dropout's bits."""
_LINE = 64
"""Bytes of a cache line, where results stored past the caches begin; Torch's memory on the CPU begins there."""
_NAMES = {torch.bfloat16: "bfloat16", torch.float32: "float32", torch.float64: "float64"}

_Argument = torch.Tensor | float | ctypes.Structure | ctypes.Array[Any] | None


class Kernels:
    """Calls into the library, with tensors on the CPU; those of one call are all bfloat16, float32 or float64."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self.file = Path(library._name).name
        """The library's file, named by a digest of sources, compiler, flags and processor."""
        self._found: dict[str, Any] = {}
        self._allocation_failed = ctypes.CFUNCTYPE(ctypes.c_bool)(("allocation_failed", library))

    @staticmethod
    def takes(x: torch.Tensor) -> bool:
        """Return True if the kernels support this tensor."""
        return x.device.type == "cpu" and x.dtype in _NAMES

    def _call(self, kernel: str, dtype: torch.dtype | None, *arguments: _Argument) -> None:
        name = kernel if dtype is None else f"{kernel}_{_NAMES[dtype]}"
        if name not in self._found:
            address = ctypes.c_void_p.in_dll(self._library, name).value
            assert address is not None
            self._found[name] = ctypes.CFUNCTYPE(None)(address)
        converted: list[Any] = []
        for argument in arguments:
            if isinstance(argument, torch.Tensor):
                converted.append(ctypes.c_void_p(argument.data_ptr()))
            elif isinstance(argument, ctypes.Structure | ctypes.Array):
                converted.append(ctypes.byref(argument))
            elif argument is None:
                converted.append(ctypes.c_void_p(None))
            else:
                converted.append(ctypes.c_int64(argument) if isinstance(argument, int) else ctypes.c_double(argument))
        self._found[name](*converted)

    def _multiply(self, kernel: str, dtype: torch.dtype, *arguments: _Argument) -> None:
        self._call(kernel, dtype, *arguments)
        if self._allocation_failed():
            raise MemoryError(f"no memory for {kernel}")

    def supports_matmul(self, x: torch.Tensor, *weights: torch.Tensor | None) -> bool:
        """Return True if the kernels support matmuls of these inputs, [..., I], with weights [O, I] and biases [O].

        These are contiguous bfloat16 of sizes that are multiples of 32, on a processor with instructions for it.
        """
        given = [weight for weight in weights if weight is not None]
        fits = all(w.dtype == x.dtype and w.is_contiguous() and not any(n % MULTIPLE for n in w.shape) for w in given)
        takes = x.device.type == "cpu" and x.dtype == torch.bfloat16 and x.dim() > 1 and x.numel() > 0
        return fits and takes and hasattr(self._library, "linear_forward_bfloat16")

    def linear_forward(
        self,
        x_NI: torch.Tensor,
        weights: Sequence[tuple[torch.Tensor, torch.Tensor | None]],
        segments: Sequence[Sequence[LoraSegment]] | None = None,
    ) -> list[torch.Tensor]:
        """Return x W^T + b, [N, O], for each weight [O, I] and bias [O] or None, with the updates of its segments.

        A segment's update and the frozen product are one sum, which is rounded once.
        """
        x_NI, segments = x_NI.contiguous(), segments or [()] * len(weights)
        assert all(weight.shape[1] == x_NI.shape[1] for weight, _ in weights)
        outputs = [x_NI.new_empty(x_NI.shape[0], weight.shape[0]) for weight, _ in weights]
        layers = described_layers(outputs, weights, segments)
        self._multiply("linear_forward", x_NI.dtype, *x_NI.shape, len(weights), layers, x_NI)
        emit(lambda: [forward_product(x_NI, weight) for weight, _ in weights])
        emit(lambda: [forward_product(x_NI[segment.slots], segment.A) for segment in chain(*segments)])
        emit(lambda: [forward_product(segment.hidden[:, : len(segment.A)], segment.B) for segment in chain(*segments)])
        return outputs

    def add_linear_(
        self, residual_NO: torch.Tensor, x_NI: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None
    ) -> None:
        """Add x W^T + b to a residual stream in float32."""
        x_NI = x_NI.contiguous()
        assert residual_NO.is_contiguous()
        layers = described_layers([residual_NO], [(weight_OI, bias_O)], [()])
        self._multiply("linear_forward", x_NI.dtype, *x_NI.shape, 1, layers, x_NI)
        emit(lambda: [forward_product(x_NI, weight_OI)])

    def linear_backward(self, weights: Sequence[torch.Tensor], grads: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the sum of dy W, [N, I], over weights [O, I] and gradients [N, O] of layers with one input.

        A gradient of a residual stream is float32, and rounded for the matmul.
        """
        dx = weights[0].new_empty(grads[0].shape[0], weights[0].shape[1])
        self._back(weights, grads, dx)
        return dx

    def adapted_backward(
        self,
        x_NI: torch.Tensor,
        weights: Sequence[torch.Tensor],
        grads: Sequence[torch.Tensor],
        segments: Sequence[Sequence[LoraSegment]],
        *,
        wants_dx: bool,
    ) -> torch.Tensor | None:
        """Return the same with the input gradients of each layer's segments, or None; add to the gradients of these."""
        assert x_NI.is_contiguous()
        assert all(segment.gradients is not None for own in segments for segment in own)
        dx = torch.empty_like(x_NI) if wants_dx else None
        self._back(weights, grads, dx, x_NI, segments)
        emit(lambda: (product for segment in chain(*segments) for product in _back_through(segment, dx)))
        return dx

    def _back(
        self,
        weights: Sequence[torch.Tensor],
        grads: Sequence[torch.Tensor],
        dx_NI: torch.Tensor | None,
        x_NI: torch.Tensor | None = None,
        segments: Sequence[Sequence[LoraSegment]] | None = None,
    ) -> None:
        grads = [dy.contiguous() for dy in grads]
        layers = described_layers(grads, [(weight, None) for weight in weights], segments or [()] * len(weights))
        sizes = (grads[0].shape[0], weights[0].shape[1], len(weights))
        self._multiply("linear_backward", weights[0].dtype, *sizes, layers, x_NI, dx_NI)
        if dx_NI is not None:
            emit(lambda: [backward_product(dx_NI, weight) for weight in weights])

    def gated_forward(
        self,
        x_NI: torch.Tensor,
        weights: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        bias_O: torch.Tensor | None,
        residual_NO: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return x G^T and x U^T, [N, M], and (silu(x G^T) * x U^T) D^T + b or a residual stream to which it is added.

        Args:
            x_NI: inputs.
            weights: G and U [M, I], and D [O, M].
            bias_O: b, or None.
            residual_NO: float32, or None.
        """
        x_NI, (gate, up, down) = x_NI.contiguous(), weights
        gated, raised = (x_NI.new_empty(x_NI.shape[0], gate.shape[0]) for _ in range(2))
        assert (gated.data_ptr() | raised.data_ptr()) % _LINE == 0
        assert residual_NO is None or residual_NO.is_contiguous()
        y = x_NI.new_empty(x_NI.shape[0], down.shape[0]) if residual_NO is None else residual_NO
        outputs = (y, None) if residual_NO is None else (None, y)
        sizes = (*x_NI.shape, *down.shape[::-1])
        self._multiply("gated_forward", x_NI.dtype, *sizes, x_NI, *weights, bias_O, gated, raised, *outputs)
        emit(lambda: [forward_product(x_NI, gate), forward_product(x_NI, up), forward_product(gated, down)])
        return gated, raised, y

    def gated_backward(
        self,
        dy_NO: torch.Tensor,
        weights: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        gated_NM: torch.Tensor,
        raised_NM: torch.Tensor,
    ) -> torch.Tensor:
        """Return the gradient with respect to x, [N, I], from that of the output.

        The gradient of a residual stream is float32, and rounded for the matmul.
        """
        dy_NO, (gate, up, down) = dy_NO.contiguous(), weights
        dx = gated_NM.new_empty(dy_NO.shape[0], gate.shape[1])
        kernel = "gated_backward" if dy_NO.dtype == down.dtype else "residual_gated_backward"
        sizes = (*dx.shape, *down.shape[::-1])
        self._multiply(kernel, down.dtype, *sizes, dy_NO, *weights, gated_NM, raised_NM, dx)
        emit(lambda: [backward_product(gated_NM, down), *(backward_product(dx, weight) for weight in (gate, up))])
        return dx

    def head_forward(
        self, x_ND: torch.Tensor, weight_VD: torch.Tensor, bias_V: torch.Tensor | None, out_NV: torch.Tensor
    ) -> None:
        """Write x W^T + b: as ``linear_forward``, for few rows and many outputs."""
        assert x_ND.is_contiguous()
        assert out_NV.is_contiguous()
        assert out_NV.data_ptr() % _LINE == 0
        self._multiply("head_forward", x_ND.dtype, *x_ND.shape, len(weight_VD), x_ND, weight_VD, bias_V, out_NV)
        emit(lambda: [forward_product(x_ND, weight_VD)])

    def head_backward(self, dy_NV: torch.Tensor, weight_VD: torch.Tensor, out_ND: torch.Tensor) -> None:
        """Write dy W: as ``linear_backward``, for few rows and many outputs."""
        assert dy_NV.is_contiguous()
        assert out_ND.is_contiguous()
        self._multiply("head_backward", dy_NV.dtype, *out_ND.shape, len(weight_VD), dy_NV, weight_VD, out_ND)
        emit(lambda: [backward_product(out_ND, weight_VD)])

    @staticmethod
    def hidden(x: torch.Tensor, slots: int, rank: int) -> torch.Tensor:
        """Return memory for a segment's dropped(x) A^T."""
        return x.new_empty(slots, rank + -rank % MULTIPLE)

    def rms_norm_forward(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return x / rms(x) * weight, [..., D], and 1 / rms(x) [N]."""
        x = x.contiguous()
        n, d = x.numel() // x.shape[-1], x.shape[-1]
        y, inverse = torch.empty_like(x), torch.empty(n, dtype=compute_dtype(x))
        self._call("rms_norm_forward", x.dtype, n, d, x, weight, float(eps), y, inverse)
        return y, inverse

    def rms_norm_backward(
        self, x: torch.Tensor, weight: torch.Tensor, inverse: torch.Tensor, dy: torch.Tensor
    ) -> torch.Tensor:
        """Return the gradient with respect to x."""
        x, dy = x.contiguous(), dy.contiguous()
        dx = torch.empty_like(x)
        self._call("rms_norm_backward", x.dtype, inverse.shape[0], x.shape[-1], x, weight, inverse, dy, dx)
        return dx

    def residual_norm_forward(
        self, residual: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Norm a float32 residual stream; return x / rms(x) * weight and x, [..., D] bfloat16, and 1 / rms(x) [N]."""
        assert residual.is_contiguous()
        n, d = residual.numel() // residual.shape[-1], residual.shape[-1]
        y, kept = (torch.empty_like(residual, dtype=weight.dtype) for _ in range(2))
        inverse = torch.empty(n, dtype=residual.dtype)
        self._call("residual_norm_forward", weight.dtype, n, d, residual, weight, float(eps), y, kept, inverse)
        return y, kept, inverse

    def add_residual_norm_backward_(
        self,
        dresidual: torch.Tensor,
        kept: torch.Tensor,
        weight: torch.Tensor,
        inverse: torch.Tensor,
        dy: torch.Tensor,
    ) -> None:
        """Add the gradient with respect to x to that of the residual stream, in float32."""
        dy = dy.contiguous()
        assert dresidual.is_contiguous()
        sizes = (inverse.shape[0], kept.shape[-1])
        self._call("residual_norm_backward", kept.dtype, *sizes, kept, weight, inverse, dy, dresidual)

    def silu_mul_forward(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """Return silu(gate) * up, [..., D]."""
        if gate.shape != up.shape:
            raise UnsupportedModelError(f"a gate of shape {list(gate.shape)} for inputs of shape {list(up.shape)}")
        gate, up = gate.contiguous(), up.contiguous()
        y, d = torch.empty_like(gate), gate.shape[-1]
        self._call("silu_mul_forward", gate.dtype, gate.numel() // d, d, gate, up, y)
        return y

    def silu_mul_backward(
        self, gate: torch.Tensor, up: torch.Tensor, dy: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the gradients with respect to gate and up."""
        gate, up, dy = gate.contiguous(), up.contiguous(), dy.contiguous()
        dgate, dup, d = torch.empty_like(gate), torch.empty_like(up), gate.shape[-1]
        self._call("silu_mul_backward", gate.dtype, gate.numel() // d, d, gate, up, dy, dgate, dup)
        return dgate, dup

    def cross_entropy_(self, logits_CV: torch.Tensor, targets_C: torch.Tensor, *, wants_grad: bool) -> torch.Tensor:
        """Return the nats of each target [C]; with ``wants_grad``, write softmax - onehot over the logits."""
        nats = torch.empty(len(targets_C), dtype=compute_dtype(logits_CV))
        self._call("cross_entropy", logits_CV.dtype, *logits_CV.shape, logits_CV, targets_C, nats, int(wants_grad))
        return nats

    def dropout_bits(
        self, features: int, rows: KernelRows, keys: torch.Tensor, *, draw: int, drop_below: int
    ) -> torch.Tensor:
        """Return one bit for each of ``features`` elements of every slot, 1 if it is kept, as int16 words."""
        kept = torch.empty(rows.blocks(features) * _WORDS, dtype=torch.int16)
        where = (rows.starts.shape[0], features, rows.lengths, rows.widths)
        self._call("dropout_bits", None, *where, keys, draw, drop_below, kept)
        return kept

    def dropout(self, x_ND: torch.Tensor, rows: KernelRows, kept: torch.Tensor) -> torch.Tensor:
        """Return x where it is kept and 0 elsewhere; the caller scales."""
        x_ND = x_ND.contiguous()
        out = torch.empty_like(x_ND)
        where = (len(rows.starts), x_ND.shape[-1], rows.starts, rows.widths)
        self._call("dropout", x_ND.dtype, *where, kept, x_ND, out)
        return out

    def add_dropped_(self, out_ND: torch.Tensor, x_ND: torch.Tensor, rows: KernelRows, kept: torch.Tensor) -> None:
        """Add x to ``out`` where it is kept."""
        assert out_ND.is_contiguous()
        assert x_ND.is_contiguous()
        where = (len(rows.starts), x_ND.shape[-1], rows.starts, rows.widths)
        self._call("add_dropped", x_ND.dtype, *where, kept, x_ND, out_ND)

    def attention_forward(
        self, q_NHF: torch.Tensor, k_NKF: torch.Tensor, v_NKF: torch.Tensor, plan: AttentionPlan
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend causally inside each row; return [N, H, F] and the log-sum-exp of each query's scores [N, H].

        Heads are adjacent in memory; tokens may be any stride apart.
        """
        out = q_NHF.new_empty(q_NHF.shape)
        log_sums = torch.empty(q_NHF.shape[:2], dtype=compute_dtype(q_NHF))
        self._call("attention_forward", q_NHF.dtype, described_heads(q_NHF, k_NKF, v_NKF, plan), out, log_sums)
        return out, log_sums

    def attention_backward(
        self,
        heads: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        plan: AttentionPlan,
        out_NHF: torch.Tensor,
        log_sums_NH: torch.Tensor,
        dout_NHF: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the gradients with respect to q, k and v, before rotation if there is one."""
        dout_NHF = dout_NHF.contiguous()
        dq, dk, dv = (x.new_empty(x.shape) for x in heads)
        described = described_heads(*heads, plan)
        self._call("attention_backward", dq.dtype, described, out_NHF, log_sums_NH, dout_NHF, dq, dk, dv)
        return dq, dk, dv


def _back_through(segment: LoraSegment, dx_NI: torch.Tensor | None) -> list[KernelProduct]:
    (rank, in_features), out_features = segment.A.shape, len(segment.B)
    n, dtype = len(segment.hidden), segment.hidden.dtype
    found = [KernelProduct(n, out_features, rank, segment.B.to(dtype)), KernelProduct(rank, n, in_features)]
    found += [KernelProduct(rank, n, out_features)]
    return found if dx_NI is None else [*found, KernelProduct(n, rank, in_features, segment.A.to(dtype))]

"""The compiled kernels as functions of tensors.

Shape legend: N tokens, D features, C tokens of a chunk, V vocabulary, H heads, K key-value heads, F features of a head.
"""

import ctypes
from dataclasses import dataclass
from typing import Any

import torch

_BLOCK = 128
_WORDS = 8
"""Words of 16 bits for one block of dropout's bits."""
_NAMES = {torch.bfloat16: "bfloat16", torch.float32: "float32", torch.float64: "float64"}


@dataclass(frozen=True, kw_only=True, eq=False)
class KernelRows:
    """Rows of a pass, or of a part of it, as the kernels want them: int64 on the CPU, one element a row."""

    starts: torch.Tensor
    """First slot, counted from the first slot of the tensors that are handed over."""
    lengths: torch.Tensor
    """Real tokens."""
    widths: torch.Tensor
    """Slots."""
    parents: torch.Tensor
    """Index of the row that holds the tokens before a row's own, or -1. It stands before its children and has no
    parent itself."""

    def blocks(self, features: int) -> int:
        """Count the blocks of 128 elements that dropout's bits come in; every row begins one."""
        return int(((self.widths * features + _BLOCK - 1) // _BLOCK).sum())


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Rotary:
    """Cosine and sine of each token's angles, [N, F] each, in the precision of the heads."""

    cosine: torch.Tensor
    sine: torch.Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AttentionPlan:
    """Who attends to whom, and how."""

    rows: KernelRows
    scaling: float
    """Factor of the scores."""
    window: int | None = None
    """Most tokens a query may look back, itself included; None: all."""
    rotary: Rotary | None = None
    """Angles by which queries and keys are still to be turned."""


class _Heads(ctypes.Structure):
    """The kernels' own description of an attention call; the fields are those of ``Heads`` in kernels.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("rows", "starts", "lengths", "widths", "parents")),
        *((name, ctypes.c_int64) for name in ("heads", "kv_heads", "d", "q_stride", "k_stride", "v_stride", "window")),
        ("scale", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("q", "k", "v", "cosine", "sine")),
    )


_Argument = torch.Tensor | float | _Heads


class Kernels:
    """Calls into the library; every tensor lies on the CPU and all of one call are bfloat16, float32 or float64."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._found: dict[str, Any] = {}

    @staticmethod
    def takes(x: torch.Tensor) -> bool:
        """Say whether the kernels can work on this tensor."""
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
            elif isinstance(argument, _Heads):
                converted.append(ctypes.byref(argument))
            else:
                converted.append(ctypes.c_int64(argument) if isinstance(argument, int) else ctypes.c_double(argument))
        self._found[name](*converted)

    def rms_norm_forward(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return x / rms(x) * weight, [..., D], and 1 / rms(x) [N]."""
        x = x.contiguous()
        n, d = x.numel() // x.shape[-1], x.shape[-1]
        y, inverse = torch.empty_like(x), torch.empty(n, dtype=_compute(x))
        self._call("rms_norm_forward", x.dtype, n, d, x, weight, float(eps), y, inverse)
        return y, inverse

    def rms_norm_backward(
        self, x: torch.Tensor, weight: torch.Tensor, inverse: torch.Tensor, dy: torch.Tensor
    ) -> torch.Tensor:
        """Return the gradient with respect to x."""
        x, dy = x.contiguous(), dy.contiguous()
        dx = torch.empty_like(x)
        self._call("rms_norm_backward", x.dtype, len(inverse), x.shape[-1], x, weight, inverse, dy, dx)
        return dx

    def silu_mul_forward(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """Return silu(gate) * up, [..., D]."""
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
        """Return the nats of each target [C]; where the gradient is wanted, write softmax - onehot over the logits."""
        nats = torch.empty(len(targets_C), dtype=_compute(logits_CV))
        self._call("cross_entropy", logits_CV.dtype, *logits_CV.shape, logits_CV, targets_C, nats, int(wants_grad))
        return nats

    def dropout_bits(
        self, features: int, rows: KernelRows, keys: torch.Tensor, *, draw: int, drop_below: int
    ) -> torch.Tensor:
        """Return one bit for each of ``features`` elements of every slot, 1 where it is kept, as int16 words."""
        kept = torch.empty(rows.blocks(features) * _WORDS, dtype=torch.int16)
        where = (len(rows.starts), features, rows.lengths, rows.widths)
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
        log_sums = torch.empty(q_NHF.shape[:2], dtype=_compute(q_NHF))
        self._call("attention_forward", q_NHF.dtype, _heads(q_NHF, k_NKF, v_NKF, plan), out, log_sums)
        return out, log_sums

    def attention_backward(
        self,
        heads: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        plan: AttentionPlan,
        out_NHF: torch.Tensor,
        log_sums_NH: torch.Tensor,
        dout_NHF: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the gradients with respect to q, k and v, before rotation where there is one."""
        dout_NHF = dout_NHF.contiguous()
        dq, dk, dv = (x.new_empty(x.shape) for x in heads)
        described = _heads(*heads, plan)
        self._call("attention_backward", dq.dtype, described, out_NHF, log_sums_NH, dout_NHF, dq, dk, dv)
        return dq, dk, dv


def _compute(x: torch.Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _heads(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, plan: AttentionPlan) -> _Heads:
    (_, n_heads, features), n_kv_heads = q.shape, k.shape[1]
    for x in (q, k, v):
        assert x.stride()[1:] == (features, 1), "the heads of a token must be adjacent"
    angles = () if plan.rotary is None else (plan.rotary.cosine, plan.rotary.sine)
    assert all(x.dtype == q.dtype and x.is_contiguous() for x in angles)
    rows = plan.rows
    return _Heads(
        len(rows.starts), *(part.data_ptr() for part in (rows.starts, rows.lengths, rows.widths, rows.parents)),
        n_heads, n_kv_heads, features, q.stride(0), k.stride(0), v.stride(0), plan.window or 0, plan.scaling,
        *(x.data_ptr() for x in (q, k, v, *angles)),
    )  # fmt: skip

"""References for the compiled kernels, in float64 and plain operations."""

from collections.abc import Callable, Sequence

import torch

from lorascope.modeling.backends.cpu.ctypes_structs import KernelRows, Rotary

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 1.5e-2}
"""Largest norm of a difference, as a share of the norm. The same numbers go into both, so that it holds the rounding of
results and of what is between."""


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def random(*shape: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def results_and_gradients(
    function: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor], grad: torch.Tensor
) -> list[torch.Tensor]:
    """What a function gives, and the gradient of each input."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    result = function(*leaves)
    result.backward(grad.to(result.dtype))
    return [result.detach(), *(leaf.grad for leaf in leaves)]


def make_rows(
    lengths: Sequence[int], widths: Sequence[int] | None = None, parents: Sequence[int] | None = None
) -> KernelRows:
    return KernelRows.end_to_end(lengths, widths or lengths, parents)


def row_attention(
    q_NHF: torch.Tensor,
    k_NKF: torch.Tensor,
    v_NKF: torch.Tensor,
    *,
    rotary: Rotary | None,
    rows: KernelRows,
    window: int | None,
    scaling: float,
) -> torch.Tensor:
    """Each row by itself, with all its scores at once."""
    out = torch.zeros_like(q_NHF)
    repeats = q_NHF.shape[1] // k_NKF.shape[1]
    for row, parent in enumerate(rows.parents.tolist()):
        own = _tokens(rows, row)
        seen = own if parent < 0 else torch.cat([_tokens(rows, parent), own])
        q, k = _turned(q_NHF[own], own, rotary), _turned(k_NKF[seen], seen, rotary)
        scores = torch.einsum("qhf,khf->hqk", q, k.repeat_interleave(repeats, 1)) * scaling
        before = len(seen) - len(own)
        allowed = torch.ones(len(own), len(seen), dtype=torch.bool).tril(before)
        if window is not None:
            allowed = allowed.triu(before + 1 - window)
        shares = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
        out = out.index_copy(0, own, torch.einsum("hqk,khf->qhf", shares, v_NKF[seen].repeat_interleave(repeats, 1)))
    return out


def _tokens(rows: KernelRows, row: int) -> torch.Tensor:
    return rows.starts[row] + torch.arange(int(rows.lengths[row]))


def _turned(x: torch.Tensor, tokens: torch.Tensor, rotary: Rotary | None) -> torch.Tensor:
    if rotary is None:
        return x
    low, high = x.chunk(2, dim=-1)
    cosine, sine = (angles[tokens, None] for angles in (rotary.cosine, rotary.sine))
    return x * cosine + torch.cat([-high, low], -1) * sine

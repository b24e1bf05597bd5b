"""Causal attention inside packed rows in Torch's operations.

Rows of similar length form a group that is padded to its longest row; a causal mask alone keeps the padding at the end
of a row out of its real tokens. So no attention is computed between rows, and no row waits for a much longer one.

Shape legend: N slots of the micro-batch, n rows of a group, L its padded length, H heads, K key-value heads, D features
of a head.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch.nn import functional as F

from lorascope.modeling.packing.length_buckets import LONG_ROW, AttentionGroup


def attend_in_groups(
    q_NHD: torch.Tensor,
    k_NKD: torch.Tensor,
    v_NKD: torch.Tensor,
    groups: Sequence[AttentionGroup],
    *,
    scaling: float,
    window: int | None,
) -> torch.Tensor:
    """Attend inside each row of each group, [N, H, D]."""
    q_HND, k_KND, v_KND = (x.transpose(0, 1) for x in (q_NHD, k_NKD, v_NKD))
    parts = [_attend(q_HND, k_KND, v_KND, group, scaling=scaling, window=window) for group in groups]
    out: torch.Tensor = _FromGroups.apply(len(q_NHD), groups, *parts)
    return out


class _ToGroup(torch.autograd.Function):
    """Gather a group's padded rows, [H, N, D] -> [H, n * L, D]; the gradient is scattered back."""

    @staticmethod
    def forward(ctx: Any, x_HND: torch.Tensor, group: AttentionGroup) -> torch.Tensor:  # noqa: ANN401
        ctx.group, ctx.shape = group, x_HND.shape
        return x_HND.index_select(1, group.slots)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:  # noqa: ANN401
        dx_HND = grads[0].new_zeros(ctx.shape)
        dx_HND.index_copy_(1, ctx.group.tokens, grads[0].index_select(1, ctx.group.places))
        return dx_HND, None


class _FromGroups(torch.autograd.Function):
    """Put the real tokens of all groups back in their slots, K x [n * L, H, D] -> [N, H, D]."""

    @staticmethod
    def forward(ctx: Any, n_slots: int, groups: Sequence[AttentionGroup], *parts: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        ctx.groups = groups
        out = parts[0].new_zeros(n_slots, *parts[0].shape[1:])
        for group, part in zip(groups, parts, strict=True):
            out.index_copy_(0, group.tokens, part.index_select(0, group.places))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        parts = []
        for group in ctx.groups:
            part = grads[0].new_zeros(group.rows * group.padded_length, *grads[0].shape[1:])
            part.index_copy_(0, group.places, grads[0].index_select(0, group.tokens))
            parts.append(part)
        return None, None, *parts


@lru_cache(maxsize=64)
def _causal_mask(
    padded_length: int, window: int | None, repeats: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Return 0 where a query may attend and -inf elsewhere, [repeats * L, L]."""
    allowed = torch.ones(padded_length, padded_length, dtype=torch.bool, device=device).tril()
    if window is not None:
        allowed = allowed.triu(1 - window)
    mask = torch.zeros(padded_length, padded_length, dtype=dtype, device=device).masked_fill_(~allowed, -torch.inf)
    return mask.repeat(repeats, 1)


def _attend(
    q_HND: torch.Tensor,
    k_KND: torch.Tensor,
    v_KND: torch.Tensor,
    group: AttentionGroup,
    *,
    scaling: float,
    window: int | None,
) -> torch.Tensor:
    """Attend inside each row of one group, [n * L, H, D]."""
    n, L, (H, _, D), K = group.rows, group.padded_length, q_HND.shape, k_KND.shape[0]
    if L > LONG_ROW or q_HND.device.type == "cuda":
        return _attend_fused(q_HND, k_KND, v_KND, group, scaling=scaling, window=window)
    q = _ToGroup.apply(q_HND, group).view(K, H // K, n, L, D)
    k = _ToGroup.apply(k_KND, group).view(K * n, L, D)
    v = _ToGroup.apply(v_KND, group).view(K * n, L, D)
    q = q.transpose(1, 2).reshape(K * n, H // K * L, D)
    scores = torch.baddbmm(_causal_mask(L, window, H // K, q.dtype, q.device), q, k.transpose(1, 2), alpha=scaling)
    out = torch.bmm(scores.softmax(dim=-1), v).view(K, n, H // K, L, D)
    return out.permute(1, 3, 0, 2, 4).reshape(n * L, H, D)


def _attend_fused(
    q_HND: torch.Tensor,
    k_KND: torch.Tensor,
    v_KND: torch.Tensor,
    group: AttentionGroup,
    *,
    scaling: float,
    window: int | None,
) -> torch.Tensor:
    """Return the same by an operation that keeps no scores: what a GPU is quick at, and long rows need."""
    n, L, (H, _, D), K = group.rows, group.padded_length, q_HND.shape, k_KND.shape[0]
    q, k, v = (_ToGroup.apply(x, group).view(-1, n, L, D).transpose(0, 1) for x in (q_HND, k_KND, v_KND))
    mask = None if window is None else _causal_mask(L, window, 1, q.dtype, q.device)
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=H != K
    )
    return out.transpose(1, 2).reshape(n * L, H, D)

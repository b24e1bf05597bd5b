"""Attention over packed rows, plugged into Transformers' attention interface.

Rows of similar length form a group that is padded to its longest row; a causal mask alone keeps the padding at the end
of a row out of its real tokens. So no attention is computed between rows, and no row waits for a much longer one.

Shape legend: N slots of the pass, n rows of a group, L its line, H heads, K key-value heads, D features of a head.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from lorascope.modeling.backends.cpu.autograd import RowAttention
from lorascope.modeling.backends.cpu.ctypes_structs import AttentionPlan, Rotary
from lorascope.modeling.packing.length_buckets import LONG_ROW, AttentionGroup
from lorascope.modeling.packing.packed_layout import current_microbatch

PACKED = "lorascope_packed"
"""The name under which the attention is registered with Transformers."""


class _ToGroup(torch.autograd.Function):
    """Pick a group's padded lines out of the pass, [H, N, D] -> [H, n * L, D]; the gradient goes straight back."""

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
    """Return 0 where a query may look and -inf elsewhere, [repeats * line, line]."""
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
    q = _ToGroup.apply(q_HND, group).view(K, H // K, n, L, D)
    k = _ToGroup.apply(k_KND, group).view(K * n, L, D)
    v = _ToGroup.apply(v_KND, group).view(K * n, L, D)
    if L > LONG_ROW:
        mask = None if window is None else _causal_mask(L, window, 1, q.dtype, q.device)
        out = F.scaled_dot_product_attention(
            q.reshape(1, H, L, D),
            k.view(1, K, L, D).repeat_interleave(H // K, dim=1),
            v.view(1, K, L, D).repeat_interleave(H // K, dim=1),
            attn_mask=mask,
            is_causal=mask is None,
            scale=scaling,
        )
        return out[0].transpose(0, 1)
    q = q.transpose(1, 2).reshape(K * n, H // K * L, D)
    scores = torch.baddbmm(_causal_mask(L, window, H // K, q.dtype, q.device), q, k.transpose(1, 2), alpha=scaling)
    out = torch.bmm(scores.softmax(dim=-1), v).view(K, n, H // K, L, D)
    return out.permute(1, 3, 0, 2, 4).reshape(n * L, H, D)


def packed_attention(  # noqa: PLR0917 - Transformers decides the signature
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **ignored: object,
) -> tuple[torch.Tensor, None]:
    """Attend inside each row of the current pass, causally.

    Args:
        module: the attention layer.
        query: [1, H, N, D].
        key: [1, K, N, D].
        value: [1, K, N, D].
        attention_mask: unused; the pass says where rows begin.
        scaling: factor of the scores, default 1 / sqrt(D).
        dropout: unused; the frozen base runs without its own dropout.
        sliding_window: most tokens a query may look back, itself included.
        ignored: what else a model passes. Whether it matters is found by comparing with the model's own attention.

    Returns:
        [1, N, H, D] and no attention weights.
    """
    del module, attention_mask, dropout, ignored
    heads = [x[0].transpose(0, 1) for x in (query, key, value)]
    return attend_in_rows(*heads, rotary=None, scaling=scaling, window=sliding_window)[None], None


def attend_in_rows(
    q_NHD: torch.Tensor,
    k_NKD: torch.Tensor,
    v_NKD: torch.Tensor,
    *,
    rotary: Rotary | None,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """Attend inside each row of the current pass, causally, [N, H, D].

    Args:
        q_NHD: queries.
        k_NKD: keys.
        v_NKD: values.
        rotary: angles by which queries and keys are still to be turned; needs the compiled kernels.
        scaling: factor of the scores, default 1 / sqrt(D).
        window: most tokens a query may look back, itself included.
    """
    active = current_microbatch()
    assert active is not None, "packed attention outside of a pass"
    scale = q_NHD.shape[-1] ** -0.5 if scaling is None else scaling
    if active.kernels is not None and active.kernels.takes(q_NHD):
        q_NHD, k_NKD, v_NKD = (x.flatten(1).view(x.shape) for x in (q_NHD, k_NKD, v_NKD))
        plan = AttentionPlan(rows=active.layout.kernel_rows, scaling=scale, window=window, rotary=rotary)
        attended: torch.Tensor = RowAttention.apply(q_NHD, k_NKD, v_NKD, plan, active.kernels)
        return attended
    assert rotary is None
    q_HND, k_KND, v_KND = (x.transpose(0, 1) for x in (q_NHD, k_NKD, v_NKD))
    groups = active.layout.groups
    parts = [_attend(q_HND, k_KND, v_KND, group, scaling=scale, window=window) for group in groups]
    out: torch.Tensor = _FromGroups.apply(active.layout.n_slots, groups, *parts)
    return out


def _no_mask(**unused: object) -> None:
    """Tell Transformers that no mask tensor is needed."""
    del unused


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, _no_mask)

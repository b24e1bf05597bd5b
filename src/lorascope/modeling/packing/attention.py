"""Attention over packed rows, plugged into Transformers' attention interface.

Shape legend: N slots of the micro-batch, H heads, K key-value heads, D features of a head.
"""

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from lorascope.errors import UnsupportedModelError
from lorascope.modeling.packing.current import ActiveMicroBatch, current_microbatch

PACKED = "lorascope_packed"
"""The name under which the attention is registered with Transformers."""


def packed_attention(  # noqa: PLR0917 - Transformers decides the signature
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **others: object,
) -> tuple[torch.Tensor, None]:
    """Attend inside each row of the current micro-batch, causally.

    Args:
        module: the attention layer.
        query: [1, H, N, D].
        key: [1, K, N, D].
        value: [1, K, N, D].
        attention_mask: unused; the micro-batch says where rows begin. It is checked where the micro-batch asks for it.
        scaling: factor of the scores, default 1 / sqrt(D).
        dropout: unused; the frozen base runs without its own dropout.
        sliding_window: most tokens that a query attends to, its own included.
        others: further arguments of some models, of which only flags that are off are understood.

    Returns:
        [1, N, H, D] and no attention weights.

    Raises:
        UnsupportedModelError: heads of other shapes, arguments that change scores, or a mask that is not causal.
    """
    del dropout
    active = current_microbatch()
    assert active is not None, "packed attention outside of a micro-batch"
    unknown = [name for name, value in others.items() if name != "position_ids" and _matters(value)]
    if unknown or not getattr(module, "is_causal", True) or others.get("is_causal", True) is False:
        raise UnsupportedModelError(f"attention with {', '.join(unknown) or 'tokens that see later ones'}")
    check_mask(attention_mask, sliding_window, active)
    _check_shapes(query, key, value, active.layout.n_slots)
    q_NHD, k_NKD, v_NKD = (x[0].transpose(0, 1) for x in (query, key, value))
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    attended = active.backend.attend(q_NHD, k_NKD, v_NKD, active.layout, scaling=scaling, window=sliding_window)
    return attended[None], None


def _matters(value: object) -> bool:
    return isinstance(value, torch.Tensor) or (value is not None and value is not True and value != 0)


def check_mask(mask: torch.Tensor | None, window: int | None, active: ActiveMicroBatch) -> None:
    """Compare the mask that the model gives its attention with what packed attention computes.

    Raises:
        UnsupportedModelError: tokens of a row see others of it than the last ``window``.
    """
    if mask is None:
        return
    if not active.checks_masks or mask.dtype != torch.bool:
        raise UnsupportedModelError("attention with a mask that the model makes itself")
    for start, length in zip(active.layout.starts, active.layout.lengths, strict=True):
        at = torch.arange(length, device=mask.device)
        seen = at[:, None] - at[None, :]
        expected = (seen >= 0) & (seen < (window or length))
        if not torch.equal(mask[0, 0, start : start + length, start : start + length], expected):
            raise UnsupportedModelError("attention whose window stands in its mask only")


def _check_shapes(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, n_slots: int) -> None:
    _, n_heads, _, features = query.shape
    expected = (1, key.shape[1], n_slots, features)
    fits = query.shape == (1, n_heads, n_slots, features) and key.shape == value.shape == expected
    if not fits or n_heads % key.shape[1]:
        shapes = ", ".join(str(list(x.shape)) for x in (query, key, value))
        raise UnsupportedModelError(f"queries, keys and values of shapes {shapes} over {n_slots} tokens")


def _mask(**arguments: Any) -> torch.Tensor | None:  # noqa: ANN401 - Transformers' own
    """Return no mask, for none is needed, but where it is to be checked."""
    active = current_microbatch()
    if active is None or not active.checks_masks:
        return None
    mask: torch.Tensor | None = sdpa_mask(**arguments | {"allow_is_causal_skip": False})
    return mask


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, _mask)

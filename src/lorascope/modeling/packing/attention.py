"""Attention over packed rows, plugged into Transformers' attention interface.

Shape legend: N slots of the micro-batch, H heads, K key-value heads, D features of a head.
"""

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from lorascope.errors import UnsupportedModelError
from lorascope.modeling.packing.current import current_microbatch

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
    **ignored: object,
) -> tuple[torch.Tensor, None]:
    """Attend inside each row of the current micro-batch, causally.

    Args:
        module: the attention layer.
        query: [1, H, N, D].
        key: [1, K, N, D].
        value: [1, K, N, D].
        attention_mask: unused; the micro-batch says where rows begin.
        scaling: factor of the scores, default 1 / sqrt(D).
        dropout: unused; the frozen base runs without its own dropout.
        sliding_window: most tokens that a query attends to, its own included.
        ignored: further arguments of some models. Comparing logits with the model's own shows whether they matter.

    Returns:
        [1, N, H, D] and no attention weights.

    Raises:
        UnsupportedModelError: heads of other shapes.
    """
    del module, attention_mask, dropout, ignored
    active = current_microbatch()
    assert active is not None, "packed attention outside of a micro-batch"
    _check_shapes(query, key, value, active.layout.n_slots)
    q_NHD, k_NKD, v_NKD = (x[0].transpose(0, 1) for x in (query, key, value))
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    attended = active.backend.attend(q_NHD, k_NKD, v_NKD, active.layout, scaling=scaling, window=sliding_window)
    return attended[None], None


def _check_shapes(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, n_slots: int) -> None:
    _, n_heads, _, features = query.shape
    expected = (1, key.shape[1], n_slots, features)
    fits = query.shape == (1, n_heads, n_slots, features) and key.shape == value.shape == expected
    if not fits or n_heads % key.shape[1]:
        shapes = ", ".join(str(list(x.shape)) for x in (query, key, value))
        raise UnsupportedModelError(f"queries, keys and values of shapes {shapes} over {n_slots} tokens")


def _no_mask(**unused: object) -> None:
    """Tell Transformers that no mask tensor is needed."""
    del unused


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, _no_mask)

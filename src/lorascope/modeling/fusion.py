"""A model's own norms, gated feed-forward layers and rotary attention, computed by the compiled kernels.

A module keeps its weights and its place in the model; only its ``forward`` is replaced, and can be put back. What is
recognised by shape is then compared with what it replaces: norms and feed-forward layers here, one by one, and
attention by the logits of the whole model when a study starts.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lorascope.modeling.attention import attend_in_rows
from lorascope.modeling.kernels.calls import Kernels, Rotary
from lorascope.modeling.kernels.operations import RmsNorm, SiluMul
from lorascope.modeling.layout import current_pass

_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""Largest difference of a module's outputs as a share of the largest output. A missing 1 in ``1 + weight``, or another
activation, makes tens of per cent."""

_Forward = Callable[..., Any]


def fuse(model: nn.Module, kernels: Kernels, *, attention: bool) -> int:
    """Let the kernels compute every norm and feed-forward layer that they can, and rotary attention; return how many."""
    found = 0
    for module in list(model.modules()):
        forward = _norm(module, kernels) or _feed_forward(module, kernels)
        if forward is None and attention:
            forward = _attention(module, kernels)
        if forward is not None:
            module.forward = forward  # type: ignore[method-assign]
            found += 1
    return found


def unfuse(model: nn.Module) -> None:
    """Give every module its own forward back."""
    for module in model.modules():
        module.__dict__.pop("forward", None)


def _norm(module: nn.Module, kernels: Kernels) -> _Forward | None:
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not type(module).__name__.endswith("RMSNorm") or not isinstance(weight, nn.Parameter) or weight.dim() != 1:
        return None
    if not isinstance(eps, float) or weight.requires_grad or not kernels.takes(weight):
        return None

    def forward(hidden_states: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = RmsNorm.apply(hidden_states, weight, eps, kernels)
        return normed

    return forward if _agree(module, forward, weight, len(weight)) else None


def _feed_forward(module: nn.Module, kernels: Kernels) -> _Forward | None:
    parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    if not all(isinstance(part, nn.Module) for part in parts) or not hasattr(module, "act_fn"):
        return None
    gate, up, down = (part for part in parts if isinstance(part, nn.Module))
    weight = next(gate.parameters())
    if not kernels.takes(weight):
        return None

    def forward(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = down(SiluMul.apply(gate(x), up(x), kernels))
        return result

    return forward if _agree(module, forward, weight, weight.shape[-1]) else None


def _agree(module: nn.Module, forward: _Forward, weight: torch.Tensor, features: int) -> bool:
    """Compare a module with its replacement on numbers of the size that a norm puts out."""
    x = torch.randn(3, features, generator=torch.Generator().manual_seed(0)).to(weight.dtype)
    with torch.no_grad():
        expected, found = module(x), forward(x)
    return bool((found - expected).abs().max() <= _TOLERANCE[weight.dtype] * expected.abs().max())


def _attention(module: nn.Module, kernels: Kernels) -> _Forward | None:
    """Let the kernels turn queries and keys by their rotary angles while they attend.

    Only where a layer is projections, rotary angles and attention, and nothing between them.
    """
    names = {name for name, _ in module.named_children()}
    scaling, head_dim = getattr(module, "scaling", None), getattr(module, "head_dim", None)
    if names != {"q_proj", "k_proj", "v_proj", "o_proj"} or not isinstance(head_dim, int):
        return None
    if not isinstance(scaling, float) or not kernels.takes(next(module.parameters())):
        return None
    own = module.forward
    q_proj, k_proj, v_proj, o_proj = (module.get_submodule(name) for name in ("q_proj", "k_proj", "v_proj", "o_proj"))
    window = getattr(module, "sliding_window", None)
    if not hasattr(module, "sliding_window") and getattr(module.config, "sliding_window", None) is not None:
        return None  # rows shorter than the window could not show whether this layer has it

    def forward(
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        *arguments: Any,  # noqa: ANN401 - handed on as they are
        **named: Any,  # noqa: ANN401
    ) -> tuple[torch.Tensor, None]:
        active = current_pass()
        packed = active is not None and active.kernels is not None and not active.layout.padded
        if not packed or position_embeddings is None or position_embeddings[0].shape[-1] != head_dim:
            result: tuple[torch.Tensor, None] = own(hidden_states, position_embeddings, *arguments, **named)
            return result
        cosine, sine = (angles[0].to(hidden_states.dtype).contiguous() for angles in position_embeddings)
        q, k, v = (part(hidden_states)[0].unflatten(-1, (-1, head_dim)) for part in (q_proj, k_proj, v_proj))
        out = attend_in_rows(q, k, v, rotary=Rotary(cosine=cosine, sine=sine), scaling=scaling, window=window)
        return o_proj(out.flatten(1)[None]), None

    return forward

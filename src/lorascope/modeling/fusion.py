"""A model's own norms, gated feed-forward layers and rotary attention, computed by the compiled kernels.

A module keeps its weights and its place in the model; only its ``forward`` is replaced, and can be put back. What is
recognised by shape is then compared with what it replaces: norms and feed-forward layers here, one by one, and
attention by the logits of the whole model when a study starts.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from lorascope.modeling.attention import attend_in_rows
from lorascope.modeling.kernels.calls import Kernels, Rotary
from lorascope.modeling.kernels.operations import FrozenForward, GatedFeedForward, RmsNorm, SiluMul
from lorascope.modeling.layout import current_pass
from lorascope.modeling.lora import MultiLoraLinear, adapted

_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""Largest difference of a module's outputs as a share of the largest output. A missing 1 in ``1 + weight``, or another
activation, makes tens of per cent."""

_Forward = Callable[..., Any]


def fuse(model: nn.Module, kernels: Kernels, *, attention: bool) -> list[nn.Module]:
    """Let the kernels compute every norm and gated layer that they can, and rotary attention; return what changed.

    A module whose forward somebody else has replaced is left alone, and so is the output head.
    """
    found = []
    get_head = getattr(model, "get_output_embeddings", lambda: None)
    head = get_head()
    for module in model.modules():
        if "forward" in vars(module) or module is head:
            continue
        forward = _norm(module, kernels) or _feed_forward(module, kernels) or _linear(module, kernels)
        if forward is None and attention:
            forward = _attention(module, kernels)
        if forward is not None:
            module.forward = forward
            found.append(module)
    return found


def unfuse(modules: Iterable[nn.Module]) -> None:
    """Give modules that were changed their own forward back."""
    for module in modules:
        del module.forward


def _norm(module: nn.Module, kernels: Kernels) -> _Forward | None:
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not type(module).__name__.endswith("RMSNorm") or not isinstance(weight, nn.Parameter) or weight.dim() != 1:
        return None
    if not isinstance(eps, float) or weight.requires_grad or not kernels.takes(weight):
        return None
    own = module.forward

    def forward(hidden_states: torch.Tensor) -> torch.Tensor:
        same = hidden_states.dtype == weight.dtype
        normed: torch.Tensor = RmsNorm.apply(hidden_states, weight, eps, kernels) if same else own(hidden_states)
        return normed

    return forward if _agree(module, forward, weight, len(weight)) else None


def _linear(module: nn.Module, kernels: Kernels) -> _Forward | None:
    if type(module) is not nn.Linear or module.weight.requires_grad:
        return None
    return FrozenForward(module, kernels) if kernels.multiplies(module.weight, module.weight, module.bias) else None


def _feed_forward(module: nn.Module, kernels: Kernels) -> _Forward | None:
    parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    gate, up, down = (part if isinstance(part, nn.Module) else None for part in parts)
    weight = None if gate is None else next(gate.parameters(), None)
    if gate is None or up is None or down is None or weight is None or not kernels.takes(weight):
        return None
    activation = getattr(module, "act_fn", None)
    if not callable(activation) or not _is_silu(activation):
        return None

    whole = all(type(part) is nn.Linear and not part.weight.requires_grad for part in (gate, up, down))

    def forward(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor
        if whole:
            result = GatedFeedForward.apply(x, gate, up, down, kernels)
        else:
            result = down(SiluMul.apply(gate(x), up(x), kernels))
        return result

    return forward if _agree(module, forward, weight, weight.shape[-1]) else None


def _is_silu(activation: Callable[[torch.Tensor], Any]) -> bool:
    """Compare with numbers of all sizes: near 0, where a layer may keep its inputs, most activations look alike."""
    x = torch.linspace(-8, 8, 65)
    try:
        return torch.allclose(activation(x), F.silu(x), atol=1e-5)
    except (TypeError, ValueError, RuntimeError):
        return False  # it takes something else than one tensor


def _agree(module: nn.Module, forward: _Forward, weight: torch.Tensor, features: int) -> bool:
    """Compare a module with its replacement on numbers of the size that a norm puts out."""
    x = torch.randn(3, features, generator=torch.Generator().manual_seed(0)).to(weight.dtype)
    try:
        with torch.no_grad():
            expected, found = module(x), forward(x)
        return bool((found - expected).abs().max() <= _TOLERANCE[weight.dtype] * expected.abs().max())
    except (TypeError, ValueError, AttributeError, RuntimeError):
        return False  # it takes or gives something else than one tensor


def _attention(module: nn.Module, kernels: Kernels) -> _Forward | None:
    """Let the kernels turn queries and keys by their rotary angles while they attend.

    Only where a layer is projections, rotary angles and attention, and nothing between them.
    """
    names = {name for name, _ in module.named_children()}
    scaling, head_dim = getattr(module, "scaling", None), getattr(module, "head_dim", None)
    if names != {"q_proj", "k_proj", "v_proj", "o_proj"} or not isinstance(head_dim, int):
        return None
    weight = next(module.parameters(), None)
    if not isinstance(scaling, float) or weight is None or not kernels.takes(weight):
        return None
    own = module.forward
    q_proj, k_proj, v_proj, o_proj = (module.get_submodule(name) for name in ("q_proj", "k_proj", "v_proj", "o_proj"))
    projections = (q_proj, k_proj, v_proj)
    adapted_ones = [part for part in projections if isinstance(part, MultiLoraLinear)]

    def projected(x: torch.Tensor) -> Sequence[torch.Tensor]:
        return adapted(adapted_ones, x) if len(adapted_ones) == 3 else [part(x) for part in projections]

    window, config = getattr(module, "sliding_window", None), getattr(module, "config", None)
    if not hasattr(module, "sliding_window") and getattr(config, "sliding_window", None) is not None:
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
        q, k, v = (part[0].unflatten(-1, (-1, head_dim)) for part in projected(hidden_states))
        out = attend_in_rows(q, k, v, rotary=Rotary(cosine=cosine, sine=sine), scaling=scaling, window=window)
        return o_proj(out.flatten(1)[None]), None

    return forward

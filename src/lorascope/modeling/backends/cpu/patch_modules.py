"""Patch modules of a model so that the compiled kernels compute them: norms, gated layers, attention, whole layers.

A module keeps its weights and its place in the model; only its ``forward`` is replaced, and can be restored. Modules
are recognised by their shape. Norms and feed-forward layers are then compared with their replacement here, one by one;
attention and layers by the logits of the whole model when a study starts.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from inspect import unwrap
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer, LlamaMLP

from lorascope.errors import UnsupportedModelError
from lorascope.modeling.adapters.linear_kinds.dense import is_unmodified
from lorascope.modeling.adapters.lora import MultiLoraLinear, adapted
from lorascope.modeling.adapters.modules_to_save import ModuleToSave
from lorascope.modeling.backends.cpu.autograd import (
    FrozenForward,
    FrozenProduct,
    GatedFeedForward,
    ResidualNorm,
    RmsNorm,
    SiluMul,
    attend,
    supports_gated_matmul,
)
from lorascope.modeling.backends.cpu.bindings import Kernels
from lorascope.modeling.backends.cpu.ctypes_structs import Rotary
from lorascope.modeling.packing.attention import check_mask
from lorascope.modeling.packing.current import current_microbatch

_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""Largest difference of a module's outputs as a share of the largest output. A missing 1 in ``1 + weight``, or another
activation, makes tens of per cent."""

LEVELS = ("layers", "attention", "modules")
"""How much of a model the kernels compute: whole layers, rotary attention at most, or norms and gated layers only."""

_Forward = Callable[..., Any]
_Maker = Callable[[nn.Module, Kernels], _Forward | None]


def patch(model: nn.Module, kernels: Kernels, level: str) -> list[nn.Module]:
    """Let the kernels compute as much of a model as they can, up to a level; return the patched modules.

    The output head, and modules whose forward is replaced already, stay as they are.
    """
    found = []
    get_head = getattr(model, "get_output_embeddings", lambda: None)
    head = get_head()
    head = head.base if isinstance(head, ModuleToSave) else head
    parts: list[_Maker] = [_norm, _feed_forward, _linear, *([] if level == "modules" else [_attention])]
    rounds: list[list[_Maker]] = [parts, [_layer]] if level == "layers" else [parts]
    for now in rounds:  # layers are made of what the first round found
        for module in model.modules():
            if "forward" in vars(module) or module is head:
                continue
            forward = next(filter(None, (make(module, kernels) for make in now)), None)
            if forward is not None:
                module.forward = forward
                found.append(module)
    if any(isinstance(module.forward, _Layer) for module in found):
        for module in found:  # the norm behind the last layer reads the stream as well
            if isinstance(module.forward, _Norm):
                module.forward = replace(module.forward, reads_stream=True)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Norm:
    """The forward of a root mean square norm."""

    weight: nn.Parameter
    eps: float
    kernels: Kernels
    own: _Forward
    reads_stream: bool = False

    def __call__(self, hidden_states: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor
        if hidden_states.dtype == self.weight.dtype:
            normed = RmsNorm.apply(hidden_states, self.weight, self.eps, self.kernels)
        elif self.reads_stream and current_microbatch() is not None and _may_be_stream(hidden_states):
            normed, _ = self.with_stream(hidden_states)
        else:
            normed = self.own(hidden_states)
        return normed

    def with_stream(self, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the norm of a residual stream, and the stream itself."""
        both: tuple[torch.Tensor, torch.Tensor] = ResidualNorm.apply(residual, self.weight, self.eps, self.kernels)
        return both


def _may_be_stream(x: torch.Tensor) -> bool:
    return x.dtype == torch.float32 and x.is_contiguous() and not x._is_view()


def _norm(module: nn.Module, kernels: Kernels) -> _Forward | None:
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not type(module).__name__.endswith("RMSNorm") or not isinstance(weight, nn.Parameter) or weight.dim() != 1:
        return None
    if not isinstance(eps, float) or weight.requires_grad or not kernels.takes(weight):
        return None
    forward = _Norm(weight, eps, kernels, module.forward)
    return forward if _agree(module, forward, weight, len(weight)) else None


def _linear(module: nn.Module, kernels: Kernels) -> _Forward | None:
    if type(module) is not nn.Linear or module.weight.requires_grad:
        return None
    return (
        FrozenForward(module, kernels) if kernels.supports_matmul(module.weight, module.weight, module.bias) else None
    )


def _feed_forward(module: nn.Module, kernels: Kernels) -> _Forward | None:
    parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    gate, up, down = (part if isinstance(part, nn.Module) else None for part in parts)
    weight = None if gate is None else next(gate.parameters(), None)
    if gate is None or up is None or down is None or weight is None or not kernels.takes(weight):
        return None
    activation = getattr(module, "act_fn", None)
    if not callable(activation) or not _is_silu(activation) or not _computes_no_more(module, LlamaMLP):
        return None

    forward = _GatedLayer(gate, up, down, kernels)
    return forward if _agree(module, forward, weight, weight.shape[-1]) else None


@dataclass(frozen=True, slots=True, eq=False)
class _GatedLayer:
    """The forward of a gated feed-forward layer, its projections frozen or adapted."""

    gate: nn.Module
    up: nn.Module
    down: nn.Module
    kernels: Kernels

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        parts = (self.gate, self.up, self.down)
        result: torch.Tensor
        if all(type(part) is nn.Linear and not part.weight.requires_grad for part in parts):
            result = GatedFeedForward.apply(x, *parts, self.kernels, None)
        else:
            result = self.down(SiluMul.apply(self.gate(x), self.up(x), self.kernels))
        return result

    def added(self, residual: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Add the layer's output to a residual stream."""
        gate, up, down = self.gate, self.up, self.down
        if (
            isinstance(gate, nn.Linear)
            and isinstance(up, nn.Linear)
            and isinstance(down, nn.Linear)
            and supports_gated_matmul(self.kernels, x, gate, up, down)
        ):
            summed: torch.Tensor = GatedFeedForward.apply(x, gate, up, down, self.kernels, residual)
            return summed
        return residual.add_(self(x))


_HARMLESS = frozenset(
    {"dropout", "functional", "getattr", "k_norm", "nn", "num_heads", "num_key_value_heads", "q_norm"}
    | {"residual_dropout", "size", "sliding_window", "use_qk_norm"}
)
"""Names in the attention of other models that change nothing where it has no further modules."""


def _computes_no_more(module: nn.Module, known: type[nn.Module], harmless: Iterable[str] = ()) -> bool:
    """Return True if a module's code names nothing that a known one's does not, such as a cap or a multiplier.

    Its logits may agree with the replacement's nevertheless: a scale that depends on positions is 1 in short rows.
    """
    names, allowed = (set(unwrap(kind.forward).__code__.co_names) for kind in (type(module), known))
    return names <= allowed.union(harmless)


def _is_silu(activation: Callable[[torch.Tensor], Any]) -> bool:
    """Compare over numbers of all sizes: near 0, where a layer's inputs may lie, most activations are alike."""
    x = torch.linspace(-8, 8, 65)
    try:
        return torch.allclose(activation(x), F.silu(x), atol=1e-5)
    except (TypeError, ValueError, RuntimeError):
        return False  # it takes something else than one tensor


def _agree(module: nn.Module, forward: _Forward, weight: torch.Tensor, features: int) -> bool:
    """Compare a module with its replacement on numbers of the size that a norm returns."""
    x = torch.randn(3, features, generator=torch.Generator().manual_seed(0)).to(weight.dtype)
    with torch.no_grad():
        try:
            expected = module(x)
        except (TypeError, ValueError, AttributeError, RuntimeError):
            return False  # it takes something else than one tensor
        try:
            found = forward(x)
        except (UnsupportedModelError, RuntimeError):
            return False  # its parts have other sizes than they seem to
    if not isinstance(expected, torch.Tensor) or expected.shape != found.shape:
        return False
    return bool((found - expected).abs().max() <= _TOLERANCE[weight.dtype] * expected.abs().max())


def _attention(module: nn.Module, kernels: Kernels) -> _Forward | None:
    """Let the kernels rotate queries and keys by their rotary angles while they attend.

    Only where a layer is projections, rotary angles and attention, and nothing between them.
    """
    names = {name for name, _ in module.named_children()}
    if not _computes_no_more(module, LlamaAttention, _HARMLESS):
        return None
    scaling, head_dim = getattr(module, "scaling", None), getattr(module, "head_dim", None)
    if names != {"q_proj", "k_proj", "v_proj", "o_proj"} or not isinstance(head_dim, int):
        return None
    weight = next(module.parameters(), None)
    if not isinstance(scaling, float) or weight is None or not kernels.takes(weight):
        return None
    window, config = getattr(module, "sliding_window", None), getattr(module, "config", None)
    if not hasattr(module, "sliding_window") and getattr(config, "sliding_window", None) is not None:
        return None  # rows shorter than the window could not show whether this layer has it
    q_proj, k_proj, v_proj, o_proj = (module.get_submodule(name) for name in ("q_proj", "k_proj", "v_proj", "o_proj"))
    return _Attention((q_proj, k_proj, v_proj), o_proj, head_dim, scaling, window, kernels, module.forward)


_Angles = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class _Attention:
    """The forward of rotary attention over packed rows."""

    projections: tuple[nn.Module, nn.Module, nn.Module]
    o_proj: nn.Module
    head_dim: int
    scaling: float
    window: int | None
    kernels: Kernels
    own: _Forward

    def __call__(
        self,
        hidden_states: torch.Tensor,
        *arguments: Any,  # noqa: ANN401 - handed on as they are
        position_embeddings: _Angles | None = None,
        **named: Any,  # noqa: ANN401
    ) -> tuple[torch.Tensor, None]:
        if arguments or not self.takes(position_embeddings, named):
            named |= {} if position_embeddings is None else {"position_embeddings": position_embeddings}
            result: tuple[torch.Tensor, None] = self.own(hidden_states, *arguments, **named)
            return result
        assert position_embeddings is not None
        return self.o_proj(self.attended(hidden_states, position_embeddings)), None

    def takes(self, position_embeddings: _Angles | None, named: dict[str, Any]) -> bool:
        """Return True if the current micro-batch is packed, and all features of a head are rotated."""
        active = current_microbatch()
        if active is None or active.layout.padded or position_embeddings is None:
            return False
        check_mask(named.get("attention_mask"), self.window, active)
        return position_embeddings[0].shape[-1] == self.head_dim

    def attended(self, hidden_states: torch.Tensor, position_embeddings: _Angles) -> torch.Tensor:
        """Return the input of the output projection, [1, N, H * F]."""
        active = current_microbatch()
        assert active is not None
        cosine, sine = (angles[0].to(hidden_states.dtype).contiguous() for angles in position_embeddings)
        q, k, v = (part[0].unflatten(-1, (-1, self.head_dim)) for part in self._projected(hidden_states))
        rotary = Rotary(cosine=cosine, sine=sine)
        out = attend(self.kernels, (q, k, v), active.layout, scaling=self.scaling, window=self.window, rotary=rotary)
        return out.flatten(1)[None]

    def _projected(self, x: torch.Tensor) -> Sequence[torch.Tensor]:
        adapted_ones = [part for part in self.projections if isinstance(part, MultiLoraLinear)]
        return adapted(adapted_ones, x) if len(adapted_ones) == 3 else [part(x) for part in self.projections]


def _layer(module: nn.Module, kernels: Kernels) -> _Forward | None:
    """Add the outputs of a layer's attention and feed-forward part to one float32 residual stream.

    In bfloat16 only, where each sum would be rounded otherwise, by an operation of its own.
    """
    names = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")
    own = next(module.parameters(recurse=False), None)
    alike = own is None and {name for name, _ in module.named_children()} == set(names)
    if not alike or not _computes_no_more(module, LlamaDecoderLayer):
        return None
    parts = [module.get_submodule(name) for name in names]
    if any(part._forward_hooks or part._forward_pre_hooks or part._backward_hooks for part in parts):
        return None  # which would not be called
    forwards = [vars(part).get("forward") for part in parts]
    before, attention, between, feed_forward = forwards
    if not isinstance(before, _Norm) or not isinstance(between, _Norm):
        return None
    if not isinstance(attention, _Attention) or not isinstance(feed_forward, _GatedLayer):
        return None
    if before.weight.dtype != torch.bfloat16:
        return None
    return _Layer(before, attention, between, feed_forward, kernels, module.forward)


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """The forward of a layer that norms what it reads and adds what it makes."""

    before: _Norm
    attention: _Attention
    between: _Norm
    feed_forward: _GatedLayer
    kernels: Kernels
    own: _Forward

    def __call__(
        self,
        hidden_states: torch.Tensor,
        *arguments: Any,  # noqa: ANN401 - handed on as they are
        position_embeddings: _Angles | None = None,
        **named: Any,  # noqa: ANN401
    ) -> torch.Tensor:
        if arguments or not self.attention.takes(position_embeddings, named):
            result: torch.Tensor = self.own(hidden_states, *arguments, position_embeddings=position_embeddings, **named)
            return result
        assert position_embeddings is not None
        if not _may_be_stream(hidden_states):  # what goes into the first layer
            hidden_states = hidden_states.to(torch.float32, copy=True).contiguous()
        x, residual = self.before.with_stream(hidden_states)
        residual = self._projected(residual, self.attention.attended(x, position_embeddings))
        x, residual = self.between.with_stream(residual)
        return self.feed_forward.added(residual, x)

    def _projected(self, residual: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        o_proj = self.attention.o_proj
        if (
            isinstance(o_proj, nn.Linear)
            and is_unmodified(o_proj, nn.Linear)
            and self.kernels.supports_matmul(attended, o_proj.weight, o_proj.bias)
        ):
            summed: torch.Tensor = FrozenProduct.apply(attended, o_proj, self.kernels, residual)
            return summed
        return residual.add_(o_proj(attended))

"""Multi-rank LoRA over the experts of mixture-of-experts layers, as PEFT's ``target_parameters``.

Such a layer stores a weight of all its experts in one parameter, [E, O, I], or [E, I, O] where it is transposed. To an
adapter each expert is a linear layer of its own, named ``PARAMETER[EXPERT]``; PEFT materialises W + scale * B A of all
experts instead, which is one weight for all rows. Trials route their rows differently: the tokens of an expert go
through it in the order of the micro-batch, in which those of one trial are neighbours.

Shape legend: N slots of the micro-batch, K experts of a token, S routed tokens in the order of their experts,
E experts, I in_features, O out_features, D width of the hidden state.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from lorascope.errors import InputError
from lorascope.modeling.adapters.lora import MultiLoraLinear, outputs_of
from lorascope.modeling.backends.protocol import AdaptedLinear, Segment
from lorascope.modeling.packing.current import ActiveMicroBatch, current_microbatch
from lorascope.spec.fields.lora import split_expert

_WEIGHTS = ("gate_up_proj", "up_proj", "down_proj")
_ACTIVE = ("num_experts_per_tok", "num_experts_per_token", "top_k", "moe_top_k", "moe_topk", "moe_k")
"""Names of the number of experts that a token passes, in Transformers' configurations."""
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 1e-2}


def expert_parameters(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layer of each parameter of experts that can take LoRA, by the parameter's full name, in order."""
    return {
        f"{name}.{own}": module
        for name, module in model.named_modules()
        if _is_experts(module)
        for own, parameter in module.named_parameters(recurse=False)
        if own in _WEIGHTS and parameter.dim() == 3 and parameter.is_floating_point()
    }


def _is_experts(module: nn.Module) -> bool:
    """Return True for classes that compute by Transformers' interface for experts, which sets these attributes."""
    return all(hasattr(module, name) for name in ("is_transposed", "has_gate", "has_bias", "_apply_gate", "down_proj"))


def parameter_endings(names: Iterable[str]) -> tuple[str, ...]:
    """Return the last two parts of parameters' names, each once: ``experts.down_proj``."""
    return tuple(dict.fromkeys(".".join(name.split(".")[-2:]) for name in names))


def expert_names(parameter: str, layer: nn.Module) -> Iterator[str]:
    """Yield the name of each expert of a parameter."""
    return (f"{parameter}[{expert}]" for expert in range(len(_weight(layer, parameter))))


def expert_features(layer: nn.Module, parameter: str) -> tuple[int, int]:
    """Return (in_features, out_features) of an expert."""
    _, first, second = _weight(layer, parameter).shape
    return (first, second) if layer.is_transposed else (second, first)


def expert_weight(model: nn.Module, name: str) -> torch.Tensor:
    """Return the weight of an expert as [O, I], a view of its parameter."""
    parameter, expert = split_expert(name)
    layer = model.get_submodule(parameter.rpartition(".")[0])
    weight = _weight(layer, parameter)[expert]
    return weight.T if layer.is_transposed else weight


def _weight(layer: nn.Module, parameter: str) -> nn.Parameter:
    return layer.get_parameter(parameter.rpartition(".")[2])


def experts_of_token(model: PreTrainedModel) -> int | None:
    """Return how many experts a token passes in a layer; None where the configuration does not say."""
    config = model.config.get_text_config()
    found = (getattr(config, name, None) for name in _ACTIVE)
    return next((value for value in found if isinstance(value, int) and value > 0), None)


class _Routing(NamedTuple):
    """Which routed tokens are of which expert and trial."""

    order: torch.Tensor
    """int64, places of [N, K] in the order of experts, then of slots; those of no expert come last."""
    cuts: Sequence[Sequence[int]]
    """Of each expert: its first place in that order, then first and last of each segment, then its end."""


class MultiLoraExperts(nn.Module):
    """A frozen layer of experts, each of which can carry any number of adapters.

    Args:
        base: the layer.
        name: its full name.
    """

    def __init__(self, base: nn.Module, name: str) -> None:
        super().__init__()
        self.base = base
        # lists, not modules: the weights are views of the layer's own
        self.experts = {
            own: [_linear(base, own, expert) for expert in range(len(parameter))]
            for own, parameter in base.named_parameters(recurse=False)
            if own in _WEIGHTS
        }
        _check_product(self, name)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)

    def forward(self, x_ND: torch.Tensor, ids_NK: torch.Tensor, weights_NK: torch.Tensor) -> torch.Tensor:
        """Return [N, D], the sum of each token's experts by their weights.

        Raises:
            InputError: the layer sees only some of the micro-batch's tokens.
        """
        active = current_microbatch()
        if active is None or not active.layout.segments or not self._has_adapters():
            output: torch.Tensor = self.base(x_ND, ids_NK, weights_NK)
            return output
        active.check_stop()
        if len(x_ND) != active.layout.n_slots:
            raise InputError(
                f"a layer of experts sees {len(x_ND)} of the {active.layout.n_slots} tokens of a pass",
                remedy="leave target_parameters out",
            )
        return self.compute(x_ND, ids_NK, weights_NK, active)

    def _has_adapters(self) -> bool:
        return any(layer.adapters for layers in self.experts.values() for layer in layers)

    def compute(
        self, x_ND: torch.Tensor, ids_NK: torch.Tensor, weights_NK: torch.Tensor, active: ActiveMicroBatch | None
    ) -> torch.Tensor:
        """Return the output, each expert on its own tokens."""
        base: Any = self.base
        routing = self._route(ids_NK, active)
        routed_S = routing.order[: routing.cuts[-1][-1]]
        x_SI = x_ND[routed_S // ids_NK.shape[1]].to(base.down_proj.dtype)
        hidden = self._project("gate_up_proj" if base.has_gate else "up_proj", x_SI, routing, active)
        hidden = base._apply_gate(hidden) if base.has_gate else base.act_fn(hidden)
        y_SD = self._project("down_proj", hidden, routing, active)
        if getattr(base, "has_post_expert_norm", False):
            y_SD = base.post_expert_norm(y_SD)
        y_SD = y_SD * weights_NK.flatten()[routed_S, None]
        y = y_SD.new_zeros(ids_NK.numel(), y_SD.shape[1]).index_copy(0, routed_S, y_SD)
        return y.view(*ids_NK.shape, -1).sum(dim=1).to(x_ND.dtype)

    def _route(self, ids_NK: torch.Tensor, active: ActiveMicroBatch | None) -> _Routing:
        n, n_chosen = ids_NK.shape
        n_experts = len(self.experts["down_proj"])
        slots = torch.arange(n, device=ids_NK.device).repeat_interleave(n_chosen)
        keys_S, order = (ids_NK.flatten() * n + slots).sort()
        layout = None if active is None else active.layout
        own = [layout.slots(first, stop) for _, first, stop in layout.segments] if layout else []
        bounds = torch.tensor([0, *(bound for one in own for bound in (one.start, one.stop)), n])
        firsts = torch.arange(n_experts)[:, None] * n
        return _Routing(order, torch.searchsorted(keys_S, (firsts + bounds).to(keys_S.device)).tolist())

    def _project(
        self, name: str, x_SI: torch.Tensor, routing: _Routing, active: ActiveMicroBatch | None
    ) -> torch.Tensor:
        """Return the product of each token with the weight of its expert, [S, O]."""
        outputs = [
            outputs_of([_adapted_expert(layer, cuts, active)], x_SI[cuts[0] : cuts[-1]], active)[0]
            for layer, cuts in zip(self.experts[name], routing.cuts, strict=True)
            if cuts[0] < cuts[-1]
        ]
        return torch.cat(outputs)


def _adapted_expert(layer: MultiLoraLinear, cuts: Sequence[int], active: ActiveMicroBatch | None) -> AdaptedLinear:
    """Return an expert with the segments of its own tokens."""
    segments = []
    for place, (index, _, _) in enumerate(active.layout.segments if active and layer.adapters else ()):
        first, stop, adapter = cuts[1 + 2 * place], cuts[2 + 2 * place], layer.adapters[index]
        if adapter is not None and first < stop:
            slots = slice(first - cuts[0], stop - cuts[0])
            segments.append(Segment(adapter=adapter, slots=slots, factor=adapter.scale, dropout=None))
    return AdaptedLinear(base=layer.base, kind=layer.kind, segments=segments)


def _linear(base: nn.Module, own: str, expert: int) -> MultiLoraLinear:
    """Return an expert as a linear layer over its part of the parameter."""
    n_in, n_out = expert_features(base, own)
    layer = nn.Linear(n_in, n_out, bias=False, device="meta")
    weight = base.get_parameter(own)[expert].detach()
    layer.weight = nn.Parameter(weight.T if base.is_transposed else weight, requires_grad=False)
    if base.has_bias:
        layer.bias = nn.Parameter(base.get_parameter(f"{own}_bias")[expert].detach(), requires_grad=False)
    return MultiLoraLinear(layer)


def _check_product(experts: MultiLoraExperts, name: str) -> None:
    """Compare what this module makes of the experts with what their own class does; not on the meta device."""
    base = experts.base
    weight = base.get_parameter("down_proj")
    if weight.is_meta:
        return
    generator = torch.Generator().manual_seed(0)
    x_ND = torch.randn(6, weight.shape[1 if not base.is_transposed else 2], generator=generator).to(weight)
    chosen = torch.rand(6, len(weight), generator=generator).topk(min(2, len(weight))).indices.to(weight.device)
    weights_NK = F.softmax(torch.randn(chosen.shape, generator=generator), dim=-1).to(weight)
    with torch.no_grad():
        expected = base(x_ND, chosen, weights_NK)
        found = experts.compute(x_ND, chosen, weights_NK, None)
    if (found - expected).norm() > _TOLERANCE[weight.dtype] * expected.norm():
        raise InputError(
            f"{type(base).__name__} ({name}) combines its experts in a way of its own, and cannot take LoRA here",
            remedy="leave target_parameters out",
        )


def expert_layers(model: nn.Module, names: Iterable[str]) -> dict[str, MultiLoraLinear]:
    """Return experts as layers by their names; the model stays as it is."""
    found = {}
    for name in names:
        parameter, expert = split_expert(name)
        assert expert is not None, name
        layer, _, own = parameter.rpartition(".")
        found[name] = _linear(model.get_submodule(layer), own, expert)
    return found


def wrap_experts(model: nn.Module, names: Iterable[str]) -> dict[str, MultiLoraLinear]:
    """Replace the layers of these experts by ones that can carry adapters; return the experts' layers by name."""
    found, wrappers = dict[str, MultiLoraLinear](), dict[str, MultiLoraExperts]()
    for name in names:
        parameter, expert = split_expert(name)
        assert expert is not None, name
        layer, _, own = parameter.rpartition(".")
        if layer not in wrappers:
            wrappers[layer] = MultiLoraExperts(model.get_submodule(layer), layer)
            model.set_submodule(layer, wrappers[layer])
        found[name] = wrappers[layer].experts[own][expert]
    return found

"""Model shape for the cost model, read from a Torch model on any device without its weights."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN

from lorascope.costmodel.cost_types import LinearShape, ModelShape
from lorascope.errors import InputError
from lorascope.modeling.adapters.experts import expert_features, expert_parameters, experts_of_token
from lorascope.modeling.adapters.linear_kinds.registry import find_kind, linear_features
from lorascope.modeling.adapters.modules_to_save import ModuleToSave, parameters_to_save
from lorascope.modeling.quantisation import count_parameters, packed_bits

_ATTENTION = "att"
"""Common part of the names of attention modules: self_attn, attention, attn."""


def model_shape(
    model: PreTrainedModel,
    targets: Iterable[str],
    own_ranks: Mapping[str, int] = MappingProxyType({}),
    modules_to_save: Sequence[str] = (),
    share: int = 1,
) -> ModelShape:
    """Read a model's shape.

    Args:
        model: a causal language model, with or without multi-rank layers.
        targets: full names of the adapted layers.
        own_ranks: ranks of those whose rank is the same in every adapter.
        modules_to_save: full names of modules that are trained whole.
        share: what the rank is divided by in experts.

    Raises:
        InputError: the model has no output head, or its configuration lacks a usable number of layers.
    """
    adapted = frozenset(targets)
    head = model.get_output_embeddings()
    if head is None:
        raise InputError(
            f"the model type {model.config.model_type} has no output head",
            remedy="give a causal language model",
        )
    plain_head = head.base if isinstance(head, ModuleToSave) else head
    layers = {
        name.removesuffix(".base"): module
        for name, module in model.named_modules()
        if find_kind(module) is not None and module is not plain_head
    }
    whole = {name: parameters_to_save(model, [name]) for name in modules_to_save}
    trained_head = sum(count for name, count in whole.items() if model.get_submodule(name) is head)
    experts = _experts(model, adapted, own_ranks, share)
    linears = Counter(
        (*linear_features(module), name in adapted, own_ranks.get(name)) for name, module in layers.items()
    )
    norms = _norms(model)
    config = model.config.get_text_config()
    blocks = _number(config, "num_hidden_layers")
    heads = [_heads(own) for own in _block_configs(config, blocks)]
    vocabulary, width = head.weight.shape
    return ModelShape(
        parameters=count_parameters(model),
        weight_bits=packed_bits(model),
        trained_embeddings=sum(whole.values()) - trained_head,
        trained_head=trained_head,
        linears=(
            *(LinearShape(n_in=i, n_out=o, adapted=a, count=n, rank=r) for (i, o, a, r), n in linears.items()),
            *experts.values(),
        ),
        width=width,
        vocabulary=vocabulary,
        blocks=blocks,
        norms=len(norms),
        norm_features=sum(norms.values()),
        wide_norms=any(type(module).__name__.endswith("RMSNorm") for module in model.modules()),
        query_features=sum(own.queries * own.features for own in heads),
        key_value_features=2 * sum(own.key_values * own.features for own in heads),
        heads=sum(own.queries for own in heads),
        hidden_features=_hidden_features(layers, experts),
        gated=_is_gated(layers, experts),
        kept_by_activation=_kept_by_activation(config),
        inputs=_inputs(layers) + sum(_expert_inputs(part) for part in experts.values()),
        adapted_inputs=_inputs({name: module for name, module in layers.items() if name in adapted})
        + sum(_expert_inputs(part) for part in experts.values() if part.adapted),
    )


def _number(config: object, name: str) -> int:
    value = getattr(config, name, None)
    if not isinstance(value, int) or value < 1:
        raise InputError(
            f"the model's configuration has no usable {name} ({value})",
            remedy="give the config.json that was saved with the model",
        )
    return value


class _Heads(NamedTuple):
    """Attention of one block; all zero in a model without any."""

    queries: int
    key_values: int
    features: int


def _block_configs(config: PretrainedConfig, blocks: int) -> list[PretrainedConfig]:
    """Return each block's configuration; in most models it is the model's."""
    own = getattr(config, "per_layer_config", None)
    return [config] * blocks if own is None else [own[block] for block in range(blocks)]


def _heads(config: PretrainedConfig) -> _Heads:
    queries = getattr(config, "num_attention_heads", None)
    if not isinstance(queries, int) or queries < 1:
        return _Heads(0, 0, 0)
    key_values = getattr(config, "num_key_value_heads", None) or queries
    return _Heads(queries, key_values, getattr(config, "head_dim", None) or _number(config, "hidden_size") // queries)


def _norms(model: nn.Module) -> dict[str, int]:
    """Return the features of each normalisation by name; one inside attention counts for a single head."""
    found = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if "norm" in type(module).__name__.lower() and weight is not None and weight.dim() == 1:
            found[name] = len(weight)
    return found


def _inputs(layers: dict[str, nn.Module]) -> int:
    """Sum the features of distinct inputs: layers of one module with the same number of features share theirs."""
    parents = {(name.rpartition(".")[0], linear_features(module)[0]) for name, module in layers.items()}
    return sum(features for _, features in parents)


def _expert_inputs(part: LinearShape) -> int:
    """Return the input features of experts: each has its own copy of a token."""
    return round(part.count) * part.n_in


def _hidden_features(layers: dict[str, nn.Module], experts: dict[str, LinearShape]) -> int:
    """Sum the hidden features of feed-forward layers: the inputs of their last projections."""
    hidden = sum(_expert_inputs(part) for name, part in experts.items() if name.endswith(".down_proj"))
    for name, module in layers.items():
        n_in, n_out = linear_features(module)
        if n_in > n_out and _ATTENTION not in name.rpartition(".")[0].rpartition(".")[2].lower():
            hidden += n_in
    return hidden


def _kept_by_activation(config: PretrainedConfig) -> int:
    """Count the values that the activation function saves for backward per input value, by running it."""
    names = (getattr(config, name, None) for name in ("hidden_act", "hidden_activation", "activation_function"))
    function = ACT2FN[next((name for name in names if isinstance(name, str) and name in ACT2FN), "relu")]
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.data_ptr()] = tensor
        return tensor

    x = torch.ones(64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        function(x * 1.0)
    return max(1, round(sum(tensor.numel() for tensor in kept.values()) / x.numel()))


def _is_gated(layers: dict[str, nn.Module], experts: dict[str, LinearShape]) -> bool:
    endings = {name.rpartition(".")[2] for name in (*layers, *experts)}
    return bool(endings & {"gate_proj", "gate_up_proj"})


def _experts(
    model: PreTrainedModel, adapted: Collection[str], own_ranks: Mapping[str, int], share: int
) -> dict[str, LinearShape]:
    """Return the routed experts of each parameter of three dimensions, of which a token passes through a few."""
    chosen, known, found = experts_of_token(model), expert_parameters(model), {}
    for name, parameter in model.named_parameters():
        if parameter.dim() != 3 or "experts" not in name:
            continue
        n_experts, n_out, n_in = parameter.shape
        if name in known:
            n_in, n_out = expert_features(known[name], name)
        layer, _, own = name.rpartition(".")
        first = f"{layer.removesuffix('.base')}.{own}[0]"
        found[name] = LinearShape(
            n_in=n_in,
            n_out=n_out,
            adapted=first in adapted,
            count=chosen or n_experts,
            rank=own_ranks.get(first),
            stored=n_experts,
            share=share,
        )
    return found

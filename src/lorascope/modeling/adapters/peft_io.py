"""Adapters in PEFT's file format: ``adapter_config.json`` and ``adapter_model.safetensors``."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel

from lorascope.errors import InputError
from lorascope.modeling.adapters.experts import expert_weight
from lorascope.modeling.adapters.linear_kinds.registry import find_kind
from lorascope.modeling.adapters.lora import MultiLoraLinear
from lorascope.modeling.adapters.modules_to_save import weights_are_tied
from lorascope.modeling.adapters.stored_adapter import (
    WEIGHTS,
    Modules,
    StoredAdapter,
    experts_of_parameters,
    explained,
    joined_factors,
    module_tensors,
    read_adapter,
    split_factors,
    tensor_places,
)
from lorascope.modeling.adapters.svd import Update
from lorascope.modeling.backends.protocol import LayerAdapter
from lorascope.spec.fields.lora import split_expert


def save_peft(
    folder: Path,
    adapters: Mapping[str, LayerAdapter],
    layers: Mapping[str, MultiLoraLinear],
    *,
    base: str,
    rank: int,
    lora_alpha: float,
    rslora: bool,
    dropout: float,
    rank_pattern: Mapping[str, int] = MappingProxyType({}),
    alpha_pattern: Mapping[str, float] = MappingProxyType({}),
    modules: Modules = MappingProxyType({}),
) -> None:
    """Write one adapter so that ``PeftModel.from_pretrained`` loads it over the base as it is.

    An adapter that did not start at zero gets twice the rank, as PEFT converts it: B A - B0 A0 = [B, -B0] [A; A0].

    Args:
        folder: made if absent.
        adapters: the adapter's part in each layer, by the layer's full name.
        layers: the adapted layers, by the same names.
        base: folder or hub id of the base model, as ``from_pretrained`` takes it.
        rank: r.
        lora_alpha: alpha, before division by r or sqrt(r).
        rslora: True where the scale is alpha / sqrt(r).
        dropout: LoRA dropout in training.
        rank_pattern: ranks of layers that have their own, as PEFT matches them.
        alpha_pattern: alphas of such layers.
        modules: weights of modules that were trained whole, by the names of modules and of their parameters.
    """
    factors = {name: _whole_factors(adapter) for name, adapter in adapters.items()}
    experts = experts_of_parameters(adapters)
    twice = 2 if any(adapter.initial is not None for adapter in adapters.values()) else 1
    alphas = math.sqrt(twice) if rslora else twice
    shared = {key: adapters[own[0]] for key, own in experts.items() if layers[own[0]].share > 1}
    shares = {key: len(one.A) for key, one in shared.items()}
    alphas_of_shares = {
        key: _whole(one.scale * (math.sqrt(len(one.A)) if rslora else len(one.A))) for key, one in shared.items()
    }
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": twice * rank,
        "lora_alpha": _whole(alphas * lora_alpha),
        "rank_pattern": shares | {key: twice * value for key, value in rank_pattern.items()},
        "alpha_pattern": alphas_of_shares | {key: _whole(alphas * value) for key, value in alpha_pattern.items()},
        "use_rslora": rslora,
        "lora_dropout": dropout,
        "target_modules": [name for name in adapters if split_expert(name)[1] is None],
        "target_parameters": list(experts) or None,
        "fan_in_fan_out": any(layers[name].kind.fan_in_fan_out for name in adapters),
        "bias": "none",
        "init_lora_weights": True,
        "inference_mode": True,
        "modules_to_save": list(modules) or None,
    }
    StoredAdapter(config=config, tensors=joined_factors(factors) | module_tensors(modules)).write(folder)


def _whole_factors(adapter: LayerAdapter) -> tuple[torch.Tensor, torch.Tensor]:
    if adapter.initial is None:
        return adapter.A, adapter.B
    A0, B0 = adapter.initial
    return torch.cat([adapter.A, A0.to(adapter.A)]), torch.cat([adapter.B, -B0.to(adapter.B)], dim=1)


def _whole(value: float) -> int | float:
    return int(value) if value == int(value) else value


def load_peft(folder: Path, adapters: Mapping[str, LayerAdapter]) -> None:
    """Read weights written by PEFT or by ``save_peft`` into an adapter of the same rank and layers.

    Raises:
        KeyError: a layer is missing in the file.
        RuntimeError: a shape differs.
    """
    tensors = load_file(folder / WEIGHTS)
    experts = experts_of_parameters(adapters)
    places = tensor_places((name for name in adapters if split_expert(name)[1] is None), list(experts))
    with torch.no_grad():
        for name, place in places.items():
            A, B = (tensors[f"{place}.lora_{which}.weight"] for which in "AB")
            own = split_factors(name, A, B, len(A) // len(experts[name])) if name in experts else {name: (A, B)}
            for layer, (own_A, own_B) in own.items():
                adapters[layer].A.copy_(own_A)
                adapters[layer].B.copy_(own_B)


def read_updates(folder: Path) -> dict[str, Update]:
    """Read the update of each layer, by the layer's full name.

    Raises:
        InputError: a file is missing, damaged, or not of an adapter that this program wrote.
    """
    with explained(folder):
        return read_adapter(folder).updates()


def read_modules(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Read the weights of modules that were trained whole, by the names of modules and of their parameters.

    Raises:
        InputError: a file is missing or damaged.
    """
    with explained(folder):
        return read_adapter(folder).modules()


def merge_peft(model: PreTrainedModel, folder: Path) -> None:
    """Add an adapter's update to the weights of a plain base model, W + scale * B A, computed in float32 or better.

    Modules that were trained whole get their trained weights.

    Raises:
        InputError: a layer does not store its weight as a matrix that an update can be added to, or not for itself.
    """
    updates = read_updates(folder)
    _check_not_shared(model, updates)
    for name, update in updates.items():
        weight_OI = _plain_weight(model, name)
        wide = torch.promote_types(weight_OI.dtype, torch.float32)
        A, B = update.A.to(weight_OI.device, wide), update.B.to(weight_OI.device, wide)
        with torch.no_grad():
            weight_OI.copy_(weight_OI.to(wide) + update.scale * (B @ A))
    for name, weights in read_modules(folder).items():
        module = model.get_submodule(name)
        for key, weight in weights.items():  # new parameters: another module may have the same as this one
            old = module.get_parameter(key)
            setattr(module, key, nn.Parameter(weight.to(old), requires_grad=False))
    if not weights_are_tied(model):
        model.config.tie_word_embeddings = model.config.get_text_config().tie_word_embeddings = False


def _plain_weight(model: PreTrainedModel, name: str) -> torch.Tensor:
    if split_expert(name)[1] is not None:
        return expert_weight(model, name)
    layer = model.get_submodule(name)
    kind = find_kind(layer)
    weight_OI = None if kind is None else kind.weight(layer)
    if weight_OI is None:
        raise InputError(
            f"the adapter cannot be merged into {name}, which stores no plain weight ({type(layer).__name__})",
            remedy="export it without merging, or merge it into the base model before it was quantised",
        )
    return weight_OI


def _check_not_shared(model: PreTrainedModel, names: Iterable[str]) -> None:
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(parameter.data_ptr(), []).append(name)
    adapted = {name for layer in names for name in (split_expert(layer)[0], f"{layer}.weight")}
    for sharing in owners.values():
        mine = next((name for name in sharing if name in adapted), None)
        if mine is not None and len(set(sharing)) > 1:
            other = next(name for name in sharing if name != mine)
            raise InputError(
                f"the adapter cannot be merged into {mine}, whose weight is also that of {other}",
                remedy="export it without merging",
            )


def truncate_peft(source: Path, target: Path, rank: int) -> None:
    """Write the best adapter of a smaller rank, layer by layer, to a folder; see ``StoredAdapter.truncated``."""
    with explained(source):
        cut = read_adapter(source).truncated(rank)
    cut.write(target)

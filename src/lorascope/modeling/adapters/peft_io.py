"""Adapters in PEFT's file format: ``adapter_config.json`` and ``adapter_model.safetensors``."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel

from lorascope.atomic import write_whole
from lorascope.errors import InputError
from lorascope.modeling.adapters.experts import expert_weight
from lorascope.modeling.adapters.linear_kinds.registry import find_kind
from lorascope.modeling.adapters.lora import MultiLoraLinear
from lorascope.modeling.adapters.modules_to_save import weights_are_tied
from lorascope.modeling.adapters.svd import Update, principal
from lorascope.modeling.adapters.tensor_file import write_tensors
from lorascope.modeling.backends.protocol import LayerAdapter
from lorascope.spec.fields.lora import pattern_value, split_expert

PREFIX = "base_model.model."
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_UNREADABLE = (
    ArithmeticError,
    AttributeError,
    KeyError,
    OSError,
    RecursionError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
)
"""Errors of reading damaged files."""


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
    modules: Mapping[str, Mapping[str, torch.Tensor]] = MappingProxyType({}),
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
    folder.mkdir(parents=True, exist_ok=True)
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
    write_tensors(folder / WEIGHTS, _joined(factors) | _of_modules(modules), {"format": "pt"})
    _write_config(folder, config)


def experts_of_parameters(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the names of the experts of each parameter, among names of layers and experts."""
    found: dict[str, list[str]] = {}
    for name in names:
        parameter, expert = split_expert(name)
        if expert is not None:
            found.setdefault(parameter, []).append(name)
    return found


def tensor_places(layers: Iterable[str], parameters: Sequence[str]) -> dict[str, str]:
    """Return where the tensors of layers and parameters are in a file, by their full names.

    PEFT wraps a layer of experts once for each parameter: the first is innermost.
    """
    found = {name: f"{PREFIX}{name}" for name in layers}
    for place, name in enumerate(parameters):
        layer = name.rpartition(".")[0]
        later = sum(other.rpartition(".")[0] == layer for other in parameters[place + 1 :])
        found[name] = f"{PREFIX}{layer}{'.base_layer' * later}"
    return found


def _joined(factors: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return A and B as PEFT stores them: of a parameter, A [E R, I] expert after expert, and B [O, R E]."""
    experts = experts_of_parameters(factors)
    places = tensor_places((name for name in factors if split_expert(name)[1] is None), list(experts))
    tensors = {}
    for name, place in places.items():
        own = [factors[expert] for expert in experts.get(name, (name,))]
        A = torch.cat([A.detach().cpu() for A, _ in own])
        B = torch.stack([B.detach().cpu() for _, B in own], dim=-1).flatten(1)
        tensors[f"{place}.lora_A.weight"], tensors[f"{place}.lora_B.weight"] = A.contiguous(), B.contiguous()
    return tensors


def _of_modules(modules: Mapping[str, Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {
        f"{PREFIX}{name}.{key}": weight.detach().cpu().contiguous()
        for name, weights in modules.items()
        for key, weight in weights.items()
    }


def _split(name: str, A: torch.Tensor, B: torch.Tensor, rank: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return A and B of each expert of a parameter, as ``_joined`` joined them."""
    n_experts = len(A) // rank
    pairs = zip(A.view(n_experts, rank, -1), B.view(len(B), rank, n_experts).permute(2, 0, 1), strict=True)
    return {f"{name}[{expert}]": (own_A, own_B.contiguous()) for expert, (own_A, own_B) in enumerate(pairs)}


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
            own = _split(name, A, B, len(A) // len(experts[name])) if name in experts else {name: (A, B)}
            for layer, (own_A, own_B) in own.items():
                adapters[layer].A.copy_(own_A)
                adapters[layer].B.copy_(own_B)


def read_updates(folder: Path) -> dict[str, Update]:
    """Read the update of each layer, by the layer's full name.

    Raises:
        InputError: a file is missing, damaged, or not of an adapter that this program wrote.
    """
    with _explained(folder):
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
        updates: dict[str, Update] = {}
        parameters = config.get("target_parameters") or []
        for layer, place in tensor_places(config["target_modules"], parameters).items():
            rank = int(pattern_value(config.get("rank_pattern", {}), layer, config["r"]))
            alpha = float(pattern_value(config.get("alpha_pattern", {}), layer, config["lora_alpha"]))
            scale = alpha / (rank**0.5 if config["use_rslora"] else rank)
            A, B = (tensors[f"{place}.lora_{which}.weight"] for which in "AB")
            n_experts = len(A) // rank if layer in parameters else 1
            if (A.ndim, B.ndim, A.shape[0], B.shape[-1]) != (2, 2, n_experts * rank, n_experts * rank):
                raise ValueError(f"the shapes {list(A.shape)} and {list(B.shape)} are not those of rank {rank}")
            own = _split(layer, A, B, rank) if layer in parameters else {layer: (A, B)}
            updates |= {name: Update(A=own_A, B=own_B, scale=scale) for name, (own_A, own_B) in own.items()}
    return updates


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        raise InputError(
            f"the adapter in {folder} cannot be read: {type(error).__name__}: {error}",
            remedy="bring its two files back from a copy, or start the study anew with --out",
        ) from error


def read_modules(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Read the weights of modules that were trained whole, by the names of modules and of their parameters.

    Raises:
        InputError: a file is missing or damaged.
    """
    with _explained(folder):
        names = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["modules_to_save"] or ()
        tensors = load_file(folder / WEIGHTS) if names else {}
        return {
            name: {key.removeprefix(start): tensor for key, tensor in tensors.items() if key.startswith(start)}
            for name in names
            for start in [f"{PREFIX}{name}."]
        }


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
    """Write the best adapter of a smaller rank, layer by layer, to a new folder; whole modules stay as they are.

    Its factors hold the scale: ``lora_alpha`` equals r, and rsLoRA is off.
    """
    updates = read_updates(source)
    config = json.loads((source / CONFIG).read_text(encoding="utf-8"))
    factors, smaller = {}, {}
    for layer, update in updates.items():
        cut = principal(update)[0].first(rank)
        if len(cut.A) < rank:
            smaller[split_expert(layer)[0]] = len(cut.A)
        factors[layer] = (cut.A, cut.B)
    target.mkdir(exist_ok=True)
    write_tensors(target / WEIGHTS, _joined(factors) | _of_modules(read_modules(source)), {"format": "pt"})
    own = {"rank_pattern": smaller, "alpha_pattern": smaller}
    _write_config(target, config | own | {"r": rank, "lora_alpha": rank, "use_rslora": False})


def _write_config(folder: Path, config: Mapping[str, object]) -> None:
    ordered = dict(sorted(config.items()))  # not what is inside: the first pattern that matches a layer counts
    write_whole(folder / CONFIG, json.dumps(ordered, indent=2) + "\n")

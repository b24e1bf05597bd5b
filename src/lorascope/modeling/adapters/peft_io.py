"""Adapters in PEFT's file format: ``adapter_config.json`` and ``adapter_model.safetensors``."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
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
from lorascope.modeling.adapters.linear_kinds.registry import find_kind
from lorascope.modeling.adapters.lora import MultiLoraLinear
from lorascope.modeling.adapters.modules_to_save import weights_are_tied
from lorascope.modeling.adapters.svd import Update, principal
from lorascope.modeling.adapters.tensor_file import write_tensors
from lorascope.modeling.backends.protocol import LayerAdapter
from lorascope.spec.fields.lora import pattern_value

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
    tensors = {}
    for name, adapter in adapters.items():
        A, B = (factor.detach().cpu() for factor in _whole_factors(adapter))
        tensors[f"{PREFIX}{name}.lora_A.weight"] = A.contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = B.contiguous()
    for name, weights in modules.items():
        tensors |= {f"{PREFIX}{name}.{key}": weight.detach().cpu().contiguous() for key, weight in weights.items()}
    twice = 2 if any(adapter.initial is not None for adapter in adapters.values()) else 1
    alphas = math.sqrt(twice) if rslora else twice
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": twice * rank,
        "lora_alpha": _whole(alphas * lora_alpha),
        "rank_pattern": {key: twice * value for key, value in rank_pattern.items()},
        "alpha_pattern": {key: _whole(alphas * value) for key, value in alpha_pattern.items()},
        "use_rslora": rslora,
        "lora_dropout": dropout,
        "target_modules": list(adapters),
        "fan_in_fan_out": any(layers[name].kind.fan_in_fan_out for name in adapters),
        "bias": "none",
        "init_lora_weights": True,
        "inference_mode": True,
        "modules_to_save": list(modules) or None,
    }
    write_tensors(folder / WEIGHTS, tensors, {"format": "pt"})
    _write_config(folder, config)


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
    with torch.no_grad():
        for name, adapter in adapters.items():
            adapter.A.copy_(tensors[f"{PREFIX}{name}.lora_A.weight"])
            adapter.B.copy_(tensors[f"{PREFIX}{name}.lora_B.weight"])


def read_updates(folder: Path) -> dict[str, Update]:
    """Read the update of each layer, by the layer's full name.

    Raises:
        InputError: a file is missing, damaged, or not of an adapter that this program wrote.
    """
    with _explained(folder):
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
        updates = {}
        for layer in config["target_modules"]:
            rank = int(pattern_value(config.get("rank_pattern", {}), layer, config["r"]))
            alpha = float(pattern_value(config.get("alpha_pattern", {}), layer, config["lora_alpha"]))
            scale = alpha / (rank**0.5 if config["use_rslora"] else rank)
            A, B = (tensors[f"{PREFIX}{layer}.lora_{which}.weight"] for which in "AB")
            if (A.ndim, B.ndim, A.shape[0], B.shape[-1]) != (2, 2, rank, rank):
                raise ValueError(f"the shapes {list(A.shape)} and {list(B.shape)} are not those of rank {rank}")
            updates[layer] = Update(A=A, B=B, scale=scale)
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
        layer = model.get_submodule(name)
        kind = find_kind(layer)
        weight_OI = None if kind is None else kind.weight(layer)
        if weight_OI is None:
            raise InputError(
                f"the adapter cannot be merged into {name}, which stores no plain weight ({type(layer).__name__})",
                remedy="export it without merging, or merge it into the base model before it was quantised",
            )
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


def _check_not_shared(model: PreTrainedModel, names: Iterable[str]) -> None:
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(parameter.data_ptr(), []).append(name.rpartition(".")[0])
    adapted = set(names)
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
    tensors, smaller = {}, {}
    for layer, update in updates.items():
        cut = principal(update)[0].first(rank)
        if len(cut.A) < rank:
            smaller[layer] = len(cut.A)
        tensors[f"{PREFIX}{layer}.lora_A.weight"] = cut.A.contiguous()
        tensors[f"{PREFIX}{layer}.lora_B.weight"] = cut.B.contiguous()
    for name, weights in read_modules(source).items():
        tensors |= {f"{PREFIX}{name}.{key}": weight for key, weight in weights.items()}
    target.mkdir(exist_ok=True)
    write_tensors(target / WEIGHTS, tensors, {"format": "pt"})
    own = {"rank_pattern": smaller, "alpha_pattern": smaller}
    _write_config(target, config | own | {"r": rank, "lora_alpha": rank, "use_rslora": False})


def _write_config(folder: Path, config: Mapping[str, object]) -> None:
    write_whole(folder / CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")

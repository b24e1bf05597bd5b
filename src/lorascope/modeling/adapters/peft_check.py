"""Load adapters with PEFT itself, over the modules of a loaded base, which are as before afterwards."""

import copy
import importlib.util
import json
import logging
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lorascope.modeling.adapters.experts import expert_layers
from lorascope.modeling.adapters.linear_kinds.registry import find_kind
from lorascope.modeling.adapters.lora import MultiLoraLinear
from lorascope.modeling.adapters.peft_io import read_modules, save_peft
from lorascope.modeling.adapters.stored_adapter import CONFIG, PREFIX, WEIGHTS, tensor_places
from lorascope.modeling.backends.protocol import LayerAdapter
from lorascope.spec.fields.lora import split_expert

PEFT_ERRORS = (
    AttributeError,
    ImportError,
    IndexError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""Errors of PEFT with an adapter that it does not load."""


def peft_is_installed() -> bool:
    """Return True if adapters can be loaded with PEFT here."""
    return importlib.util.find_spec("peft") is not None


@contextmanager
def loaded_by_peft(model: PreTrainedModel, folder: Path) -> Iterator[nn.Module]:
    """Let PEFT load an adapter into a plain model; on exit, the model's modules are its own again."""
    children = [(module, dict(module._modules)) for module in model.modules()]
    attributes = set(vars(model))
    try:
        with _silent():
            from peft import PeftModel  # noqa: PLC0415 - it need not be installed

            device = "cpu" if model.device.type == "meta" else str(model.device)
            loaded: nn.Module = PeftModel.from_pretrained(model, str(folder), torch_device=device)
        yield loaded
    finally:
        for module, own in children:
            module._modules.clear()
            module._modules.update(own)
        for name in set(vars(model)) - attributes:
            delattr(model, name)


@contextmanager
def _silent() -> Iterator[None]:
    """Keep what PEFT and the libraries that it imports tell their users off the screen."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def layers_left_out(model: PreTrainedModel, folder: Path) -> list[str]:
    """Return the layers, and parameters of experts, in an adapter's files that PEFT left out of the model it made."""
    tensors = load_file(folder / WEIGHTS)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    places = tensor_places(config["target_modules"], config.get("target_parameters") or [])
    modules = dict(model.named_modules())

    def has(name: str, which: str) -> bool:
        module = modules.get(places[name].removeprefix(PREFIX))
        adapters = getattr(module, f"lora_{which}", {})
        weight = adapters["default"].weight if "default" in adapters else None
        stored = tensors[f"{places[name]}.lora_{which}.weight"]
        if getattr(module, "parameter_name", name.rpartition(".")[2]) != name.rpartition(".")[2]:
            return False
        return weight is not None and weight.shape == stored.shape and torch.equal(weight.cpu().to(stored), stored)

    lost = [name for name in places if not (has(name, "A") and has(name, "B"))]
    return lost + [name for name, weights in read_modules(folder).items() if not _has_copy(modules.get(name), weights)]


def _has_copy(module: nn.Module | None, stored: Mapping[str, torch.Tensor]) -> bool:
    copy = getattr(module, "modules_to_save", {})
    loaded = dict(copy["default"].named_parameters()) if "default" in copy else {}
    same = (torch.equal(loaded[key].cpu(), one.to(loaded[key].dtype)) for key, one in stored.items() if key in loaded)
    return stored.keys() <= loaded.keys() and all(same)


def without_weights(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a model on the meta device with linear layers of one weight on the CPU, for PEFT to load into.

    Names, classes of modules and the configuration decide which layers PEFT loads, and sizes do not.
    """
    small = copy.deepcopy(model)
    for name, module in list(small.named_modules()):
        kind = find_kind(module)
        if kind is not None:
            layer = Conv1D(1, 1) if kind.fan_in_fan_out else nn.Linear(1, 1, bias=False)
            small.set_submodule(name, layer.requires_grad_(requires_grad=False))
    return small


def unloadable_layers(model: PreTrainedModel, names: Sequence[str]) -> frozenset[str]:
    """Return the layers of a plain model whose adapters PEFT leaves out or refuses; none where it is not installed.

    PEFT rewrites names of mixture-of-experts models, and refuses some layers of state-space models.
    """
    if not peft_is_installed() or not names:
        return frozenset()
    try:
        return frozenset(_left_out(model, names))
    except PEFT_ERRORS:
        pass
    by_ending = defaultdict(list)
    for name in names:
        by_ending[name.rpartition(".")[2]].append(name)
    lost = {name for own in by_ending.values() if _is_refused(model, own) for name in own}
    kept = [name for name in names if name not in lost]
    return frozenset(lost | (set(_left_out(model, kept)) if kept and lost else set(names)))


def _is_refused(model: PreTrainedModel, names: Sequence[str]) -> bool:
    try:
        return bool(_left_out(model, names))
    except PEFT_ERRORS:
        return True


def _left_out(model: PreTrainedModel, names: Sequence[str]) -> list[str]:
    """Let PEFT load an adapter of rank 1 with these layers."""
    layers = expert_layers(model, [name for name in names if split_expert(name)[1] is not None])
    layers |= {name: MultiLoraLinear(model.get_submodule(name)) for name in names if name not in layers}
    adapters = {}
    for place, (name, layer) in enumerate(layers.items()):
        n_in, n_out = layer.features
        A, B = torch.full((1, n_in), 1.0 + place), torch.full((n_out, 1), 1.0 + place)
        adapters[name] = LayerAdapter(A=A, B=B, scale=1.0, dropout=0.0)
    with TemporaryDirectory() as folder:
        save_peft(Path(folder), adapters, layers, base="", rank=1, lora_alpha=1, rslora=False, dropout=0.0)
        with loaded_by_peft(model, Path(folder)):
            lost = layers_left_out(model, Path(folder))
    return [name for name in names if split_expert(name)[0] in lost]

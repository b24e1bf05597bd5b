"""Adapters that PEFT wrote: read as LoRA over the base as it is, or refused by name."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from lorascope.errors import InputError
from lorascope.modeling.adapters.experts import expert_features, expert_parameters
from lorascope.modeling.adapters.initialisation import check_initialisation, factors_of_base
from lorascope.modeling.adapters.linear_kinds.registry import find_kind
from lorascope.modeling.adapters.lora import MultiLoraLinear
from lorascope.modeling.adapters.modules_to_save import select_modules_to_save
from lorascope.modeling.adapters.stored_adapter import (
    CONFIG,
    PREFIX,
    WEIGHTS,
    StoredAdapter,
    explained,
    read_adapter,
    tensor_places,
)
from lorascope.modeling.adapters.svd import Update
from lorascope.spec.fields.lora import FROM_BASE, split_expert
from lorascope.spec.load import STUDY_FILE
from lorascope.spec.peft_config import read_object, unknown_options
from lorascope.spec.peft_options import REFUSED, is_default
from lorascope.spec.schema import StudySpec

_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_OF_TRAINING = frozenset({"eva_config", "corda_config", "lora_ga_config", "loftq_config"})
"""Options that say how the initial values were made; ``init_lora_weights`` says whether the base changed with them."""
_OTHER_BASE = ("loftq", "corda", "lora_ga")
"""Initial values that leave another base, and that the base's weights alone do not bring back."""
_LORA = (".lora_A.weight", ".lora_B.weight")
_DEFAULTS = {"r": 8, "lora_alpha": 8, "use_rslora": False, "init_lora_weights": True}
_BY_NAME = {"exclude_modules": None, "layers_to_transform": None, "layers_pattern": None}
"""Options that select layers, which are all named in full here."""


def open_adapter(folder: Path) -> StoredAdapter:
    """Read the LoRA adapter in a folder, with every layer and module under its full name.

    Raises:
        InputError: there is none, it is of another kind, or its weights are pickled, damaged or not over a plain base.
    """
    config = _read_config(folder)
    _check_options(folder, config)
    if not (folder / WEIGHTS).is_file():
        raise _no_weights(folder)
    with explained(folder, remedy="bring its two files back from a copy"):
        stored = _with_full_names(folder, {**_DEFAULTS, **config}, read_adapter(folder).tensors)
        stored.updates()
    return stored


def _read_config(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder} has no {CONFIG}" if folder.is_dir() else f"there is no folder {folder}",
                         remedy=_where(folder))  # fmt: skip
    return read_object(folder / CONFIG)


def _where(folder: Path) -> str:
    adapters = folder / "adapters" if (folder / STUDY_FILE).is_file() else folder
    found = sorted(path.parent for path in adapters.glob(f"*/{CONFIG}"))
    return f"give an adapter's folder, such as {found[0]}" if found else "give a folder that PEFT saved an adapter to"


def _check_options(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse what is more, or something else, than scale * B A x over the base as it is."""
    kind, task = config.get("peft_type"), config.get("task_type") or "CAUSAL_LM"
    if kind != "LORA" or task != "CAUSAL_LM":
        raise InputError(
            f"the adapter in {folder} is {kind} for {task}, and only LORA for CAUSAL_LM is read",
            remedy="give a LoRA adapter of a causal language model",
        )
    names = [*unknown_options(config), *(name for name in REFUSED if name not in _OF_TRAINING)]
    other = next((name for name in names if not is_default(config.get(name))), None)
    if other is not None:
        shown = "use_dora (DoRA)" if other == "use_dora" else other
        raise InputError(
            f"the adapter in {folder} sets {shown}, and only plain LoRA is read: scale * B A x over the base as it is",
            remedy="give an adapter that was trained without it",
        )
    how = str(config.get("init_lora_weights", True)).lower()
    if how.startswith(_OTHER_BASE):
        raise InputError(
            f"the adapter in {folder} began with {how}, which leaves another base than the model as it is",
            remedy="convert it with PEFT: save_pretrained(..., path_initial_model_for_weight_conversion=...)",
        )


def _no_weights(folder: Path) -> InputError:
    pickled = next((path for path in sorted(folder.iterdir()) if path.suffix in _PICKLED), None)
    if pickled is None:
        return InputError(f"{folder} has no {WEIGHTS}", remedy="bring the file back from a copy")
    return InputError(
        f"{pickled} is pickled, and loading it could run code that it holds",
        remedy=f"load it with PEFT where you trust it, and save_pretrained writes {WEIGHTS}",
    )


def _with_full_names(folder: Path, config: dict[str, Any], tensors: Mapping[str, torch.Tensor]) -> StoredAdapter:
    places = list(dict.fromkeys(key.removesuffix(end) for key in tensors for end in _LORA if key.endswith(end)))
    others = [key for key in tensors if not key.endswith(_LORA)]
    parameters = config.get("target_parameters") or []
    of_parameters = {tensor_places((), parameters)[name] for name in parameters}
    layers = [place.removeprefix(PREFIX) for place in places if place not in of_parameters]
    if not of_parameters <= set(places):
        raise InputError(
            f"the adapter in {folder} names parameters of experts by their ends ({', '.join(parameters)})",
            remedy="give their full names in target_parameters of a copy, in the order of the model",
        )
    strange = [key for key in tensors if not key.startswith(PREFIX)] + [key for key in others if "lora_" in key]
    if strange or not places:
        raise InputError(
            f"the adapter in {folder} has tensors that are not A and B of linear layers"
            if strange
            else f"the adapter in {folder} has no tensors of LoRA",
            remedy=f"{strange[0]} is one; only linear layers are read" if strange else "give a trained LoRA adapter",
        )
    modules = list(dict.fromkeys(key.removeprefix(PREFIX).rpartition(".")[0] for key in others))
    named = {"target_modules": layers, "target_parameters": parameters or None, "modules_to_save": modules or None}
    return StoredAdapter(config={**config, **_BY_NAME, **named}, tensors=tensors)


def check_fits(stored: StoredAdapter, model: PreTrainedModel, name: str) -> None:
    """Check that a model, which may be on the meta device, has the layers and modules of an adapter.

    Args:
        stored: the adapter.
        model: without layers of this package.
        name: of the model, for the user.

    Raises:
        InputError: it lacks one, has it in another shape, or has one that cannot take LoRA here.
    """
    experts, remedy = expert_parameters(model), "give the base that it was trained on, with --model"
    modules = dict(model.named_modules(remove_duplicate=False))
    for layer, update in stored.updates().items():
        features = _features(model, modules, experts, layer)
        if features is None:
            raise InputError(f"the adapter changes {layer}, which the model {name} does not have", remedy=remedy)
        if features != (update.A.shape[1], update.B.shape[0]):
            raise InputError(
                f"the adapter's {layer} maps {update.A.shape[1]} features to {update.B.shape[0]}, and that of the "
                f"model {name} {features[0]} to {features[1]}",
                remedy=remedy,
            )
    _check_modules(stored, model, modules, name)


def _features(
    model: PreTrainedModel, modules: Mapping[str, nn.Module], experts: Mapping[str, nn.Module], layer: str
) -> tuple[int, int] | None:
    """Return (in_features, out_features) of a layer or expert; None where the model has none of that name."""
    parameter, expert = split_expert(layer)
    if expert is not None:
        return expert_features(experts[parameter], parameter) if parameter in experts else None
    module = modules.get(layer)
    if module is None:
        return None
    kind = find_kind(module)
    head = module is model.get_output_embeddings()
    if kind is None or head:
        what = "the output head" if head else f"a {type(module).__name__}"
        raise InputError(
            f"the adapter changes {layer}, {what}, which cannot take LoRA here",
            remedy="give an adapter of linear layers; an output head may be in modules_to_save",
        )
    return kind.features(module)


def _check_modules(stored: StoredAdapter, model: PreTrainedModel, modules: Mapping[str, nn.Module], name: str) -> None:
    whole = stored.modules()
    for module in whole:
        if module not in modules:
            raise InputError(
                f"the adapter has weights of {module}, which the model {name} does not have",
                remedy="give the base that it was trained on, with --model",
            )
    select_modules_to_save(model, tuple(whole))
    for module, key, shapes in _shapes(whole, modules):
        if len(set(shapes)) > 1:
            raise InputError(
                f"the adapter's {module}.{key} is {list(shapes[0])}, and that of the model {name} {list(shapes[1])}",
                remedy="give the base with the vocabulary that the adapter was trained with",
            )


def _shapes(
    whole: Mapping[str, Mapping[str, torch.Tensor]], modules: Mapping[str, nn.Module]
) -> Iterator[tuple[str, str, tuple[torch.Size, torch.Size]]]:
    for module, weights in whole.items():
        own = dict(modules[module].named_parameters())
        for key, weight in weights.items():
            yield module, key, (weight.shape, own[key].shape if key in own else torch.Size())


def over_plain_base(stored: StoredAdapter, layer_of: Callable[[str], MultiLoraLinear]) -> StoredAdapter:
    """Return an adapter that began from the base's weights, and was not converted, as an update of the base as it is.

    PEFT subtracts such an adapter's initial update from the base as it loads it, so that it adds B A - B0 A0.

    Args:
        stored: any adapter; others are returned as they are.
        layer_of: a layer of the model by its full name.

    Raises:
        InputError: PEFT is not installed, or a layer stores no plain weight.
    """
    how = str(stored.config["init_lora_weights"]).lower()
    if FROM_BASE.fullmatch(how) is None:
        return stored
    updates = stored.updates()
    layers = {name: layer_of(name) for name in updates}
    # ranks are fixed by the files, so that the smallest that a study can have is asked for
    check_initialisation(layers, StudySpec(init_lora_weights=how, ranks=(1,)))
    plain = {name: _without_initial(one, layers[name], how) for name, one in updates.items()}
    found = stored.with_updates(plain)
    return StoredAdapter(config={**found.config, "init_lora_weights": True}, tensors=found.tensors)


def _without_initial(update: Update, layer: MultiLoraLinear, how: str) -> Update:
    A0, B0 = (factor.cpu() for factor in factors_of_base(layer, len(update.A), update.scale, how))
    A, B = torch.cat([update.A.to(A0), A0]), torch.cat([update.B.to(B0), -B0], dim=1)
    return Update(A=A, B=B, scale=update.scale)

"""Quantised base models: which can carry adapters here, how they are loaded, and what they take."""

import importlib.util
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import BitsAndBytesConfig, PretrainedConfig, PreTrainedModel
from transformers.quantizers.auto import AutoHfQuantizer

from lorascope.errors import MODEL_ERRORS, InputError
from lorascope.modeling.adapters.linear_kinds.quantised import QuantisedKind, packed_tensors

_PACKAGES = {"bitsandbytes": "bitsandbytes", "torchao": "torchao", "gptq": "gptqmodel", "awq": "gptqmodel"}
"""Packages of the methods whose layers can carry adapters."""
_UNPACKED = frozenset({"fp8", "mxfp4", "gguf"})
"""Methods that Transformers turns back into plain weights as it reads them."""
_PLAIN_KINDS = frozenset({"F64", "F32", "F16", "BF16", "I64", "BOOL"})
"""Types of tensors, as safetensors writes them, in which no packed weights are stored."""
_UNQUANTISED = "give the unquantised model, with --quantize nf4 where memory is short"
_KIND = QuantisedKind()
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it says at each product that int8 casts to float16


def check_quantisation(name: str, config: PretrainedConfig, quantize: str | None, *, here: bool = True) -> None:
    """Check that a model's quantisation, stored or asked for, can carry adapters; reads no weights.

    Args:
        name: the model as the study names it.
        config: its configuration.
        quantize: how a plain model is to be quantised.
        here: whether this machine has to be able to load it, too.

    Raises:
        InputError: it is of a kind that cannot, its package is missing, or a quantised model is to be quantised again.
    """
    stored = stored_quantisation(config)
    method = "bitsandbytes" if quantize else stored_method(stored)
    if stored and quantize:
        problem = f"model {name} is quantised ({describe(stored)}) and cannot be quantised again"
        raise InputError(problem, remedy="leave --quantize out, or give the unquantised model")
    if not method or method in _UNPACKED:
        return
    what = f"quantize {quantize}" if quantize else f"model {name} is quantised ({describe(stored)})"
    if method not in _PACKAGES:
        raise InputError(f"{what}, a kind that adapters cannot be trained over here", remedy=_UNQUANTISED)
    if not here:
        return
    package = _PACKAGES[method]
    if importlib.util.find_spec(package) is None:
        install = "pip install 'lorascope[quantized]'" if method == "bitsandbytes" else f"pip install {package}"
        other = "leave it out" if quantize else _UNQUANTISED
        raise InputError(f"{what}, and {package} is not installed", remedy=f"{install}, or {other}")
    if stored:
        try:
            AutoHfQuantizer.from_config(dict(stored), pre_quantized=True).validate_environment(device_map=None)
        except (ImportError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"{what}, and cannot be loaded here: {error}", remedy=_UNQUANTISED) from error


def check_packed(name: str, config: PretrainedConfig, folder: Path) -> None:
    """Check by the headers of a model's files that weights are packed where its configuration says so.

    Nothing is checked where there is no folder, as of a model of the hub.

    Raises:
        InputError: all weights are plain numbers.
    """
    stored = stored_quantisation(config)
    files = sorted(folder.glob("*.safetensors"))
    if stored_method(stored) not in _PACKAGES or not files:
        return
    try:
        kinds = {kind for file in files for kind in _kinds(file)}
    except (OSError, SafetensorError):
        return  # what is wrong with it, the loader says
    if kinds <= _PLAIN_KINDS:
        raise _not_packed(name, stored)


def _kinds(file: Path) -> set[str]:
    with safe_open(file, framework="pt") as content:
        return {content.get_slice(name).get_dtype() for name in content.keys()}  # noqa: SIM118 - it is no mapping


def _not_packed(name: str, stored: Mapping[str, Any]) -> InputError:
    return InputError(
        f"model {name} is quantised ({describe(stored)}), but its weights are not packed in that form",
        remedy="take quantization_config out of its config.json, and use --quantize nf4",
    )


def stored_quantisation(config: PretrainedConfig) -> Mapping[str, Any]:
    """Return the settings of a quantised model's configuration; empty for a plain model."""
    found = getattr(config, "quantization_config", None)
    return found if isinstance(found, dict) else found.to_dict() if found is not None else {}


def describe(stored: Mapping[str, Any]) -> str:
    """Return the method and the bits of a weight, such as ``bitsandbytes, 4 bits``."""
    method, bits = stored_method(stored) or "by an unknown method", weight_bits(stored)
    return f"{method}, {bits:.0f} bits" if bits else method


def stored_method(stored: Mapping[str, Any]) -> str:
    """Return the name of the method; empty for a plain model."""
    method = stored.get("quant_method", "")
    return str(getattr(method, "value", method))


def weight_bits(stored: Mapping[str, Any]) -> float | None:
    """Return the bits of a weight, without scales; None where the settings do not say."""
    if stored_method(stored) == "bitsandbytes":
        return 4.0 if stored.get("load_in_4bit") else 8.0
    if stored_method(stored) == "torchao":
        named = re.search(r"[Ii]nt(\d+)", str(stored.get("quant_type")))
        return float(named.group(1)) if named else None
    bits = stored.get("bits")
    return float(bits) if isinstance(bits, int) else None


def planned_bits(config: PretrainedConfig, quantize: str | None) -> float | None:
    """Return the bits that a weight of a linear layer will take, scales included; None for a plain model."""
    scales = {"nf4": 4 + 8 / 64 + 32 / (64 * 256), "int8": 8.0}
    if quantize:
        return scales[quantize]
    stored = stored_quantisation(config)
    if stored_method(stored) not in _PACKAGES:
        return None
    bits = weight_bits(stored)
    single = stored.get("load_in_4bit") and not stored.get("bnb_4bit_use_double_quant")
    return 4 + 32 / 64 if single else scales["nf4"] if bits == 4 else bits


def loading_options(quantize: str | None, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Return what ``from_pretrained`` needs to quantise a plain model as it reads it; nothing for None."""
    if quantize is None:
        return {}
    if quantize == "int8":  # without outlier columns, which would depend on later tokens and other rows
        config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=dtype,
            bnb_4bit_use_double_quant=True,
        )
    return {"quantization_config": config, "device_map": {"": device}}


def prepare_quantised(model: PreTrainedModel, name: str) -> None:
    """Check that a loaded model's quantised layers are packed and give gradients; nothing for a plain model.

    Raises:
        InputError: its weights are not in the form that its configuration says, or its layers give no gradient.
    """
    layers = quantised_layers(model)
    if not layers:
        return
    what = f"model {name} is quantised ({describe(stored_quantisation(model.config))})"
    for layer in layers.values():
        if getattr(layer, "weight", None) is not None and type(layer.weight) is nn.Parameter:
            raise _not_packed(name, stored_quantisation(model.config))
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            vars(layer)["support_avx512bf16_for_cpu"] = False  # it would repack weights in place, without a gradient
        if (state := getattr(layer, "state", None)) is not None:
            state.threshold = 0.0  # as in loading_options
    label, layer = next(iter(layers.items()))
    n_in, n_out = _KIND.features(layer)
    one = torch.ones(1, 1, dtype=model.dtype, device=model.device)
    try:
        outputs = layer(one.expand(1, n_in).contiguous()), _KIND.add_input_gradient(layer, one.expand(1, n_out), None)
    except MODEL_ERRORS as error:
        raise InputError(f"{what}, and {label} gives no gradient ({error})", remedy=_UNQUANTISED) from error
    if not all(output.isfinite().all().item() for output in outputs):
        raise InputError(f"{what}, and {label} gives no finite gradient", remedy=_UNQUANTISED)


def quantised_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the quantised layers of a model by name."""
    return {name: module for name, module in model.named_modules() if _KIND.matches(module)}


def count_parameters(model: nn.Module) -> int:
    """Return the parameters of a model, those that are packed included."""
    packed = quantised_layers(model).values()
    inside = {id(one) for layer in packed for one in layer.parameters()}
    whole = sum(one.numel() for one in model.parameters() if id(one) not in inside)
    biases = sum(one.numel() for layer in packed if isinstance(one := getattr(layer, "bias", None), torch.Tensor))
    return whole + biases + sum(n_in * n_out for n_in, n_out in map(_KIND.features, packed))


def packed_bits(model: nn.Module) -> float | None:
    """Return the bits that a weight of the quantised layers takes, scales included; None for a plain model."""
    packed = quantised_layers(model).values()
    n_bytes = sum(part.numel() * part.element_size() for layer in packed for part in packed_tensors(layer))
    return 8 * n_bytes / sum(n_in * n_out for n_in, n_out in map(_KIND.features, packed)) if packed else None


def base_bytes(model: nn.Module) -> int:
    """Return the bytes of a model's weights, packed ones as they are stored."""
    packed = quantised_layers(model).values()
    inside = {id(one) for layer in packed for one in layer.parameters()}
    whole = sum(one.numel() * one.element_size() for one in model.parameters() if id(one) not in inside)
    return whole + sum(part.numel() * part.element_size() for layer in packed for part in packed_tensors(layer))

"""Quantised linear layers of bitsandbytes, torchao and GPTQModel, which unpack their weight whenever they multiply.

The forward is the layer's own. The gradient of its input needs W alone: unpacked where its library says how, and else
by autograd through the layer.
"""

import importlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

_LIBRARIES = frozenset({"bitsandbytes", "gptqmodel", "torchao"})


class QuantisedKind:
    """Layers whose class or whose weight's class is a quantiser's."""

    fan_in_fan_out = False

    def matches(self, module: nn.Module) -> bool:
        """Return True if the layer is of this kind."""
        is_linear = hasattr(module, "in_features") and hasattr(module, "out_features") and not module._modules
        return is_linear and _library(module) is not None

    def features(self, layer: nn.Module) -> tuple[int, int]:
        """Return (in_features, out_features)."""
        n_in, n_out = layer.in_features, layer.out_features
        assert isinstance(n_in, int)
        assert isinstance(n_out, int)
        return n_in, n_out

    def weight(self, layer: nn.Module) -> None:
        """Return None: the weight is packed."""
        del layer

    def add_input_gradient(self, layer: nn.Module, dy_NO: torch.Tensor, dx_NI: torch.Tensor | None) -> torch.Tensor:
        """Return dy W, [N, I], added in place to ``dx_NI`` if there is one."""
        weight_OI = unpacked_weight(layer)
        gradient = _by_autograd(layer, dy_NO) if weight_OI is None else dy_NO @ weight_OI.to(dy_NO.dtype)
        return gradient if dx_NI is None else dx_NI.add_(gradient)


def unpacked_weight(layer: nn.Module) -> torch.Tensor | None:
    """Return the weight [O, I] that the layer stands for; None if its library has no call for that."""
    weight: Any = layer.weight if hasattr(layer, "weight") else None
    if _library(layer) == "bitsandbytes":
        functional: Any = importlib.import_module("bitsandbytes.functional")
        if getattr(weight, "quant_state", None) is not None:
            unpacked: torch.Tensor = functional.dequantize_4bit(weight.data, weight.quant_state)
        else:
            unpacked = functional.int8_vectorwise_dequant(weight.data, _int8_scales(layer))
        return unpacked
    return weight.dequantize() if _library(layer) == "torchao" else None


def packed_tensors(layer: nn.Module) -> Iterator[torch.Tensor]:
    """Yield the plain tensors that a quantised layer stores: packed weights, scales, bias."""
    for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
        yield from _plain(tensor)
        state = getattr(tensor, "quant_state", None)
        if state is not None:
            yield from (value for _, value in sorted(state.as_dict(packed=True).items()))
        if hasattr(tensor, "SCB"):
            yield _int8_scales(layer)


def _int8_scales(layer: Any) -> torch.Tensor:  # noqa: ANN401 - bitsandbytes has no types
    """Return the scale of each output, which the first forward moves from the weight to the layer's state."""
    scales: torch.Tensor = layer.weight.SCB if layer.weight.SCB is not None else layer.state.SCB
    return scales


def _plain(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    if hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _plain(getattr(tensor, name))
    else:
        yield tensor.detach()


def _library(module: nn.Module) -> str | None:
    weight = getattr(module, "weight", None)
    packages = (type(part).__module__.partition(".")[0] for part in (module, weight))
    return next((package for package in packages if package in _LIBRARIES), None)


def _by_autograd(layer: nn.Module, dy_NO: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        x_NI = dy_NO.new_ones(len(dy_NO), int(layer.in_features), requires_grad=True)  # type: ignore[arg-type]
        gradient: torch.Tensor = torch.autograd.grad(layer(x_NI), x_NI, dy_NO)[0]
    return gradient

"""A throwaway kind of linear layer: its weight is stored in int8 with a scale for each output, as quantisers do.

All that a new kind needs is here; a test registers it with one line.
"""

import torch
from torch import nn


class Int8Linear(nn.Module):
    """y = x W^T + b with W = scale * int8, formed whenever it is needed."""

    stored: torch.Tensor
    scale: torch.Tensor

    def __init__(self, dense: nn.Linear) -> None:
        super().__init__()
        scale = dense.weight.detach().abs().amax(dim=1, keepdim=True) / 127
        self.register_buffer("stored", (dense.weight.detach() / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = dense.bias

    def dequantised(self) -> torch.Tensor:
        """W, [O, I]."""
        return self.stored.to(self.scale.dtype) * self.scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.dequantised(), self.bias)


class Int8Kind:
    """How adapters use an Int8Linear."""

    fan_in_fan_out = False

    def matches(self, module: nn.Module) -> bool:
        return isinstance(module, Int8Linear)

    def features(self, layer: nn.Module) -> tuple[int, int]:
        assert isinstance(layer, Int8Linear)
        n_out, n_in = layer.stored.shape
        return n_in, n_out

    def weight(self, layer: nn.Module) -> None:
        del layer

    def add_input_gradient(self, layer: nn.Module, dy_NO: torch.Tensor, dx_NI: torch.Tensor | None) -> torch.Tensor:
        assert isinstance(layer, Int8Linear)
        gradient = dy_NO @ layer.dequantised()
        return gradient if dx_NI is None else dx_NI.add_(gradient)

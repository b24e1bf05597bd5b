"""Protocol of a kind of frozen linear layer that can carry adapters.

Shape legend: N tokens, I in_features, O out_features.
"""

from typing import Protocol

import torch
from torch import nn


class LinearKind(Protocol):
    """Layers that compute y = x W^T + b with a frozen W, however they store it. The forward is the layer's own call."""

    @property
    def fan_in_fan_out(self) -> bool:
        """Return True if the layer stores its weight as [I, O]; PEFT's name for it."""

    def matches(self, module: nn.Module) -> bool:
        """Return True if the layer is of this kind."""

    def features(self, layer: nn.Module) -> tuple[int, int]:
        """Return (in_features, out_features)."""

    def weight(self, layer: nn.Module) -> torch.Tensor | None:
        """Return the layer's own weight as [O, I], a view of it; None if it is stored in another form."""

    def add_input_gradient(self, layer: nn.Module, dy_NO: torch.Tensor, dx_NI: torch.Tensor | None) -> torch.Tensor:
        """Return dy W, [N, I], added in place to ``dx_NI`` if there is one."""

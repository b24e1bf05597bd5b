"""Linear layers that store their whole weight: ``nn.Linear`` and GPT-2's ``Conv1D``."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lorascope.errors import MODEL_ERRORS

DENSE_TYPES = (nn.Linear, Conv1D)


@dataclass(frozen=True, slots=True)
class DenseKind:
    """A layer with a ``weight`` of its own: [O, I], or [I, O] with ``fan_in_fan_out``."""

    type: type[nn.Module]
    fan_in_fan_out: bool

    def matches(self, module: nn.Module) -> bool:
        """Return True if the layer is of this kind, or of a subclass that computes the same product."""
        return isinstance(module, self.type) and _computes_product(type(module), self.type)  # type: ignore[arg-type]

    def features(self, layer: nn.Module) -> tuple[int, int]:
        """Return (in_features, out_features)."""
        if isinstance(layer, nn.Linear):
            return layer.in_features, layer.out_features
        n_out, n_in = self.weight(layer).shape
        return n_in, n_out

    def weight(self, layer: nn.Module) -> torch.Tensor:
        """Return the weight as [O, I]."""
        stored = layer.weight
        assert isinstance(stored, torch.Tensor)
        return stored.T if self.fan_in_fan_out else stored

    def add_input_gradient(self, layer: nn.Module, dy_NO: torch.Tensor, dx_NI: torch.Tensor | None) -> torch.Tensor:
        """Return dy W, [N, I], added in place to ``dx_NI`` if there is one."""
        weight_OI = self.weight(layer)
        return dy_NO @ weight_OI if dx_NI is None else dx_NI.addmm_(dy_NO, weight_OI)


@cache
def _computes_product(kind: type[nn.Module], dense: type[nn.Module]) -> bool:
    """Try the forward of a subclass on a layer that has nothing but a weight and a bias: a router has more."""
    if kind.forward is dense.forward:
        return True
    with torch.random.fork_rng(devices=[]):
        plain = nn.Linear(3, 5) if dense is nn.Linear else Conv1D(5, 3)
        x, layer = torch.randn(2, 3), kind.__new__(kind)
    layer.__dict__ = plain.__dict__
    try:
        return torch.allclose(layer(x), plain(x), atol=1e-5)
    except (*MODEL_ERRORS, AssertionError, ImportError, IndexError):
        return False


def is_unmodified(layer: nn.Module, *types: type[nn.Module]) -> bool:
    """Return True if the layer is an unmodified instance of these types.

    Hooks and a replaced forward are modifications, but for a forward that a backend put in place, which has the
    attribute ``computes_own_product``.
    """
    forward = vars(layer).get("forward")
    own = forward is None or hasattr(forward, "computes_own_product")
    plain = type(layer) in types and type(getattr(layer, "weight", None)) in {nn.Parameter, torch.Tensor, type(None)}
    return own and plain and not (layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks)

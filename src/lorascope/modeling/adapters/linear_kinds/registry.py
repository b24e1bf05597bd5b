"""Registry of the kinds of linear layers that can carry adapters."""

from torch import nn
from transformers.pytorch_utils import Conv1D

from lorascope.modeling.adapters.linear_kinds.dense import DenseKind
from lorascope.modeling.adapters.linear_kinds.protocol import LinearKind
from lorascope.modeling.adapters.linear_kinds.quantised import QuantisedKind

KINDS: list[LinearKind] = [
    QuantisedKind(),
    DenseKind(nn.Linear, fan_in_fan_out=False),
    DenseKind(Conv1D, fan_in_fan_out=True),
]
"""The first that matches a layer is used: a subclass of ``nn.Linear`` that stores its weight otherwise goes first."""


def find_kind(module: nn.Module) -> LinearKind | None:
    """Return the kind of a layer; None if it cannot carry adapters."""
    return next((kind for kind in KINDS if kind.matches(module)), None)


def linear_features(layer: nn.Module) -> tuple[int, int]:
    """Return (in_features, out_features) of a layer that can carry adapters."""
    kind = find_kind(layer)
    assert kind is not None, f"{type(layer).__name__} is no linear layer"
    return kind.features(layer)

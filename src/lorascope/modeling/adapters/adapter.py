"""One trial's adapter over all its layers, in one flat tensor.

Flat storage makes the optimizer, the gradient norm and a checkpoint one operation each; the layers see views of it.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType

import torch
from torch import nn

from lorascope.modeling.adapters.initialisation import factors_of_base
from lorascope.modeling.adapters.lora import MultiLoraLinear
from lorascope.modeling.adapters.modules_to_save import ModuleToSave
from lorascope.modeling.backends.protocol import LayerAdapter
from lorascope.units import lora_parameters


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterShape:
    """The parameters of an adapter's tensors and of their initial values."""

    rank: int
    scale: float
    dropout: float
    seed: int
    own: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    """Rank and scale of layers that have their own, by their full name."""
    initialisation: bool | str = True
    """PEFT's ``init_lora_weights``."""

    def of_layer(self, name: str) -> tuple[int, float]:
        """Return rank and scale in a layer."""
        return self.own.get(name, (self.rank, self.scale))


class Adapter:
    """A and B of every adapted layer.

    Args:
        layers: adapted layers by their full name; the adapter joins each of them.
        shape: rank, scale, dropout and seed.
        modules: modules trained whole, by their full name; the adapter has a copy of each.
        compute_dtype: precision of the base. The weights are float32, or float64 under a float64 base, and rounded
            where a layer multiplies with them.
    """

    def __init__(
        self,
        layers: Mapping[str, MultiLoraLinear],
        shape: AdapterShape,
        modules: Mapping[str, ModuleToSave] = MappingProxyType({}),
        *,
        compute_dtype: torch.dtype,
    ) -> None:
        self.shape = shape
        dtype = torch.promote_types(compute_dtype, torch.float32)
        sizes = {name: layer.features for name, layer in layers.items()}
        n_lora = sum(lora_parameters(shape.of_layer(name)[0], [size]) for name, size in sizes.items())
        self.saved_parameters = sum(weight.numel() for one in modules.values() for weight in one.base.parameters())
        """Those of whole modules."""
        n_parameters = n_lora + self.saved_parameters
        base = next(iter(layers.values())).base
        device = next(chain(base.parameters(), base.buffers())).device
        self.flat = nn.Parameter(torch.zeros(n_parameters, dtype=dtype, device=device))
        self.flat.grad = torch.zeros_like(self.flat)
        self.layers: dict[str, LayerAdapter] = {}
        at = 0
        from_base = shape.initialisation not in {True, "gaussian"}
        for name, (n_in, n_out) in sizes.items():
            rank, scale = shape.of_layer(name)
            end_A, end_B = at + rank * n_in, at + rank * (n_in + n_out)
            self.layers[name] = LayerAdapter(
                A=self._leaf(at, end_A, (rank, n_in)),
                B=self._leaf(end_A, end_B, (n_out, rank)),
                scale=scale,
                dropout=shape.dropout,
                initial=factors_of_base(layers[name], rank, scale, str(shape.initialisation)) if from_base else None,
            )
            at = end_B
        self._modules = modules
        self.copies: dict[str, dict[str, torch.Tensor]] = {}
        """The trained weights of whole modules, by the names of modules and of their parameters."""
        for name, module in modules.items():
            self.copies[name] = {}
            for key, weight in module.base.named_parameters():
                self.copies[name][key] = self._leaf(at, at + weight.numel(), weight.shape)
                at += weight.numel()
        self.initialise()

    def _leaf(self, start: int, stop: int, shape: tuple[int, ...]) -> torch.Tensor:
        leaf = self.flat.detach()[start:stop].view(shape).requires_grad_()
        assert self.flat.grad is not None
        leaf.grad = self.flat.grad[start:stop].view(shape)
        return leaf

    def initialise(self) -> None:
        """Set A to PEFT's initial values and B to zero, or both to those made from the base; copy whole modules.

        PEFT draws A from the Kaiming uniform distribution with a = sqrt(5), which is U(-1/sqrt(I), 1/sqrt(I)), or
        from N(0, 1/r^2). Each layer has a stream of its own, drawn row after row, so that with one seed a smaller
        rank's uniform A is the first rows of a larger rank's.
        """
        with torch.no_grad():
            self.flat.zero_()
            for name, layer in self.layers.items():
                if layer.initial is not None:
                    layer.A.copy_(layer.initial[0])
                    layer.B.copy_(layer.initial[1])
                else:
                    layer.A.copy_(self._drawn(name, layer.A.shape))
            for name, copy in self.copies.items():
                for key, weight in copy.items():
                    weight.copy_(self._modules[name].base.get_parameter(key))

    def _drawn(self, name: str, shape: torch.Size) -> torch.Tensor:
        digest = hashlib.sha256(f"{self.shape.seed}:{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
        if self.shape.initialisation == "gaussian":
            return torch.randn(shape, generator=generator, dtype=torch.float64) / shape[0]
        return (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1) * (1 / math.sqrt(shape[1]))

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """Return the adapter's tensors: weights and their gradient."""
        assert self.flat.grad is not None
        return self.flat, self.flat.grad

    def zero_grad(self) -> None:
        """Set the gradient to zero in place; the layers' gradients are views of it."""
        assert self.flat.grad is not None
        self.flat.grad.zero_()


def attach(
    layers: Mapping[str, MultiLoraLinear],
    adapters: list[Adapter],
    modules: Mapping[str, ModuleToSave] = MappingProxyType({}),
) -> None:
    """Make these the adapters of layers and whole modules, in this order; an empty list detaches all.

    An adapter of other layers leaves a layer as it is.
    """
    for name, layer in layers.items():
        layer.adapters = [adapter.layers.get(name) for adapter in adapters]
    for name, module in modules.items():
        module.copies = [adapter.copies[name] for adapter in adapters]

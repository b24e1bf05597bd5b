"""Multi-rank LoRA: adapters of different rank, alpha and dropout on one frozen linear layer, each on its own rows.

LoRA (Hu et al. 2021, arXiv 2106.09685, section 4.1): y = x W^T + b + scale * dropout(x) A^T B^T, A [r, in], B [out, r].
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from lorascope.errors import InputError
from lorascope.modeling.adapters.dropout import realised_probability
from lorascope.modeling.adapters.linear_kinds.registry import find_kind
from lorascope.modeling.backends.protocol import AdaptedLinear, LayerAdapter, MultiLora, Segment
from lorascope.modeling.packing.current import ActiveMicroBatch, current_microbatch


class _MultiLoraFunction(torch.autograd.Function):
    """The outputs of layers with one input, adapters included; stores no gradient that is not needed."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - the type of autograd's context is private to torch
        x: torch.Tensor,
        layers: Sequence[AdaptedLinear],
        active: ActiveMicroBatch,
        *leaves: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        del leaves  # they are here so that autograd routes their gradients; the values come with the layers
        x_NI = x.flatten(0, -2).contiguous()
        computed: MultiLora = active.backend.multi_lora(layers, x_NI)
        outputs, kept = computed.forward(x_NI)
        ctx.computed, ctx.shape, ctx.check_stop = computed, x.shape, active.check_stop
        ctx.save_for_backward(x_NI, *kept)
        return tuple(outputs)  # no views: the model may change them in place

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        check_stop: Callable[[], None] = ctx.check_stop
        check_stop()
        x_NI, *kept = ctx.saved_tensors
        dx_NI, leaf_grads = ctx.computed.backward(x_NI, kept, grads, wants_dx=ctx.needs_input_grad[0])
        return None if dx_NI is None else dx_NI.view(ctx.shape), None, None, *leaf_grads


def adapted(layers: Sequence["MultiLoraLinear"], x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the output of layers with one input, whose gradient is then added up once for all of them."""
    active = current_microbatch()
    parts = [AdaptedLinear(base=layer.base, kind=layer.kind, segments=layer.segments(x, active)) for layer in layers]
    return outputs_of(parts, x, active)


def outputs_of(
    parts: Sequence[AdaptedLinear], x: torch.Tensor, active: ActiveMicroBatch | None
) -> tuple[torch.Tensor, ...]:
    """Return the output of layers with one input and known segments."""
    if active is None or not any(part.segments for part in parts):
        return tuple(part.base(x) for part in parts)
    adapters = [segment.adapter for part in parts for segment in part.segments]
    leaves = [leaf for adapter in adapters for leaf in (adapter.A, adapter.B)]
    outputs_NO: tuple[torch.Tensor, ...] = _MultiLoraFunction.apply(x, parts, active, *leaves)
    outputs = [y_NO.view(*x.shape[:-1], -1) for y_NO in outputs_NO]
    return tuple(_without_initial(part, x, y) for part, y in zip(parts, outputs, strict=True))


def _without_initial(part: AdaptedLinear, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Subtract the initial update of each adapter that did not start at zero."""
    if all(segment.adapter.initial is None for segment in part.segments):
        return y
    x_NI, y_NO = x.flatten(0, -2), y.flatten(0, -2)
    pieces, end = [], 0
    for segment in part.segments:
        own_nO = y_NO[segment.slots]
        if segment.adapter.initial is not None:
            A, B = (factor.to(x.dtype) for factor in segment.adapter.initial)
            own_nO = torch.addmm(own_nO, x_NI[segment.slots] @ A.T, B.T, alpha=-segment.adapter.scale)
        pieces += [y_NO[end : segment.slots.start], own_nO]
        end = segment.slots.stop
    return torch.cat([*pieces, y_NO[end:]]).view(y.shape)


class MultiLoraLinear(nn.Module):
    """A frozen linear layer of a registered kind with any number of adapters.

    The current micro-batch says which adapter works on which rows. Outside of a micro-batch, and for rows without an
    adapter, the layer returns the base layer's own result. What it lacks itself, such as ``weight``, is the base's.
    """

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        kind = find_kind(base)
        assert kind is not None, f"{type(base).__name__} cannot carry adapters"
        self.base, self.kind = base, kind
        self.adapters: list[LayerAdapter | None] = []
        self.share = 1
        """Adapters have this share of their rank here."""
        self.initial_factors: dict[tuple[str, int, float], tuple[torch.Tensor, torch.Tensor]] = {}
        """Initial values made from the base's weight, by method, rank and scale."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)

    @property
    def features(self) -> tuple[int, int]:
        """Return (in_features, out_features)."""
        return self.kind.features(self.base)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [..., O] for [..., I]; the leading dimensions flatten to the slots of the current micro-batch."""
        return adapted([self], x)[0]

    def segments(self, x: torch.Tensor, active: ActiveMicroBatch | None) -> list[Segment]:
        """Return which slots each adapter works on, with the dropout that this call draws.

        Raises:
            InputError: the layer sees only some of the micro-batch's tokens.
        """
        if active is None:
            return []
        active.check_stop()
        layout = active.layout
        if x.numel() != layout.n_slots * x.shape[-1]:
            raise InputError(
                f"a target layer of the model sees {x.numel() // x.shape[-1]} of the {layout.n_slots} tokens of a pass",
                remedy="leave layers that see selected tokens only (routed experts) out of target_modules",
            )
        found = []
        for index, first, stop in layout.segments:
            adapter = self.adapters[index]
            if adapter is None:
                continue
            slots, factor, dropout = layout.slots(first, stop), adapter.scale, None
            if active.streams is not None and adapter.dropout > 0:
                factor = adapter.scale / (1.0 - realised_probability(adapter.dropout))
                dropout = active.streams.rows(first, stop).at(active.streams.next_draw(index), adapter.dropout)
            found.append(Segment(adapter=adapter, slots=slots, factor=factor, dropout=dropout))
        return found

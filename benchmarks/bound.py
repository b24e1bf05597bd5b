"""The time that the matrix products of a step need alone: what the arithmetic allows.

Every matrix product that Torch carries out in a step, forward and backward, is recorded by shape, strides and dtype,
and then replayed with nothing in between. A tensor that existed before the step (a weight, a laid-out copy of one, an
adapter) is replayed as itself, so that as much weight memory is read as in the step. The others are random stand-ins,
several of each form in turn, so that no product finds its operands in the nearest cache from the time before.

Products inside of another operation (Torch's fused attention, a kernel of the package's own) are not seen. The bound
is lower by them, and a share of it is then too small, never too large.
"""

import gc
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_PRODUCTS = {
    "mm": (0, 1, -1),
    "addmm": (1, 2, -1),
    "addmm_": (1, 2, -1),
    "_addmm_activation": (1, 2, -1),
    "bmm": (0, 1, -1),
    "baddbmm": (1, 2, -1),
    "baddbmm_": (1, 2, -1),
    "linear": (0, 1, 0),
    "mkldnn_linear": (0, 1, 0),
    "_linear_pointwise": (0, 1, 0),
}
"""Operations that are one matrix product: where their factors stand, and the second factor's dimension that the
product keeps."""
_RING_BYTES = 64_000_000
_RING = (2, 8)
"""Fewest and most stand-ins of one form, within ``_RING_BYTES`` otherwise."""
_REPLAYS = 3


@dataclass(frozen=True, slots=True)
class Form:
    """What a stand-in has in common with the tensor it stands for."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Product:
    """One matrix product of a step; its tensors are Forms, or themselves where they existed before."""

    operation: torch._ops.OpOverload
    arguments: tuple[object, ...]
    keywords: dict[str, object]
    flops: int


class ProductRecorder(TorchDispatchMode):
    """Keeps the matrix products that are carried out inside its ``with`` block, backward passes included."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[Product] = []
        self._existing = _existing_storages()

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        del types
        keywords = kwargs or {}
        name = func.overloadpacket.__name__
        if name in _PRODUCTS:
            written = [bool(a.alias_info and a.alias_info.is_write) for a in func._schema.arguments]
            names = [a.name for a in func._schema.arguments]
            self.products.append(
                Product(
                    operation=func,
                    arguments=tuple(self._operand(value, written[i]) for i, value in enumerate(args)),
                    keywords={key: self._operand(value, written[names.index(key)]) for key, value in keywords.items()},
                    flops=_flops(args, *_PRODUCTS[name]),
                )
            )
        return func(*args, **keywords)

    def _operand(self, value: object, is_written: bool) -> object:
        if not isinstance(value, torch.Tensor) or value.is_mkldnn:  # only weights have the library's own layout
            return value
        if not is_written and value.untyped_storage().data_ptr() in self._existing:
            return value.detach()
        return Form(shape=tuple(value.shape), stride=value.stride(), dtype=value.dtype, device=value.device)


def _existing_storages() -> frozenset[int]:
    # issubclass and not isinstance, which would wake up other libraries' lazy modules
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    plain = [tensor for tensor in tensors if tensor.layout == torch.strided]
    return frozenset(tensor.untyped_storage().data_ptr() for tensor in plain) - {0}


def _flops(args: Sequence[Any], first: int, second: int, kept: int) -> int:
    return 2 * int(args[first].numel()) * int(args[second].shape[kept])


def replay_seconds(products: Sequence[Product]) -> float:
    """Return the seconds that the products alone take, the median of three times after a warm-up."""
    stand_ins = _StandIns()
    calls = [
        (
            product.operation,
            tuple(stand_ins.of(value) for value in product.arguments),
            {key: stand_ins.of(value) for key, value in product.keywords.items()},
        )
        for product in products
    ]
    seconds = []
    with torch.no_grad():
        for _ in range(1 + _REPLAYS):
            start = time.perf_counter()
            for operation, arguments, keywords in calls:
                operation(*arguments, **keywords)
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


class _StandIns:
    """Random tensors by form, a few of each, handed out in turn."""

    def __init__(self) -> None:
        self._made: defaultdict[Form, list[torch.Tensor]] = defaultdict(list)
        self._turns: defaultdict[Form, count[int]] = defaultdict(count)

    def of(self, value: object) -> object:
        """Return the value itself, or a tensor of the form that it is."""
        if not isinstance(value, Form):
            return value
        made, turn = self._made[value], next(self._turns[value])
        n_elements = max(1, 1 + sum((size - 1) * step for size, step in zip(value.shape, value.stride, strict=True)))
        fewest, most = _RING
        ring = min(most, max(fewest, _RING_BYTES // (n_elements * value.dtype.itemsize)))
        if turn < ring:
            flat = torch.randn(n_elements, device=value.device).to(value.dtype)
            made.append(flat.as_strided(value.shape, value.stride))
        return made[turn % ring]


def record_products(run: Callable[[], object]) -> list[Product]:
    """Return the matrix products that a call carries out, in order."""
    recorder = ProductRecorder()
    with recorder:
        run()
    return recorder.products

"""The time that the matrix products of a step need alone: what the arithmetic allows.

Every matrix product of a step, forward and backward, is recorded by shape, strides and dtype, and then replayed by
Torch with nothing in between; also those that a compiled kernel of the package makes, each weight's by itself. A tensor
that existed before the step (a weight, an adapter) is replayed as itself, so that as much weight memory is read as in
the step. The others are random stand-ins, several of each form in turn, so that no product finds its operands in the
nearest cache from the time before.

Products inside of another operation (Torch's fused attention) are not seen: the bound is lower by them, and a share of
it then too small, never too large. Those of the package's own attention kernel are counted apart, as the batched
products of each row that they stand for, by the part of them that lies under the causal mask.
"""

import gc
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lorascope.measure.flops import MATMULS
from lorascope.modeling.backends.cpu.bindings import Kernels
from lorascope.modeling.backends.cpu.ctypes_structs import AttentionPlan
from lorascope.modeling.backends.cpu.matmul_hooks import KernelProduct, watched_products

_RING_BYTES = 64_000_000
_RING = (2, 8)
"""Fewest and most stand-ins of one form, within ``_RING_BYTES`` otherwise."""
_REPLAYS = 3
_LARGE_INNER, _FEWER_ROWS = 16_384, 224
_CPU = torch.device("cpu")


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
    arguments: tuple[Any, ...]
    keywords: dict[str, object]
    flops: int


class ProductRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps the matrix products that are carried out inside its ``with`` block, backward passes included."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
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
        if name in MATMULS:
            written = [bool(a.alias_info and a.alias_info.is_write) for a in func._schema.arguments]
            names = [a.name for a in func._schema.arguments]
            self.products.append(
                Product(
                    operation=func,
                    arguments=tuple(self._operand(value, written[i]) for i, value in enumerate(args)),
                    keywords={key: self._operand(value, written[names.index(key)]) for key, value in keywords.items()},
                    flops=_flops(args, *MATMULS[name]),
                )
            )
        return func(*args, **keywords)

    def add(self, made: KernelProduct) -> None:
        """Add a product that a kernel made, as Torch's own product of the same shape.

        That of a large inner dimension, the output head's gradient, in parts of fewer rows: the library is quicker so.
        """
        rows, inner, columns, second = made
        if inner > _LARGE_INNER and rows > _FEWER_ROWS:
            for part in range(0, rows, _FEWER_ROWS):
                self.add(made._replace(rows=min(_FEWER_ROWS, rows - part)))
            return
        left = Form((rows, inner), (inner, 1) if second is not None else (1, rows), torch.bfloat16, _CPU)
        right = Form((inner, columns), (columns, 1), torch.bfloat16, _CPU) if second is None else second.detach()
        flops = 2 * rows * inner * columns
        self.products.append(
            Product(operation=torch.ops.aten.mm.default, arguments=(left, right), keywords={}, flops=flops)
        )

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
    with recorder, watched_products(recorder.add):
        run()
    return recorder.products


@contextmanager
def recorded_attention() -> Iterator[list[Product]]:
    """Give a list that fills with the products which the attention kernel's calls stand for, in this block."""
    found: list[Product] = []
    forward, backward = Kernels.attention_forward, Kernels.attention_backward

    def seen_forward(
        kernels: Kernels, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, plan: AttentionPlan
    ) -> tuple[torch.Tensor, ...]:
        found.extend(_attention_products(plan, q, k, backward=False))
        return forward(kernels, q, k, v, plan)

    def seen_backward(
        kernels: Kernels,
        heads: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        plan: AttentionPlan,
        *rest: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        found.extend(_attention_products(plan, heads[0], heads[1], backward=True))
        return backward(kernels, heads, plan, *rest)

    with (
        mock.patch.object(Kernels, "attention_forward", seen_forward),
        mock.patch.object(Kernels, "attention_backward", seen_backward),
    ):
        yield found


def attention_seconds(products: Sequence[Product]) -> float:
    """Return the seconds that attention's products alone take, by the part of them that the causal mask leaves."""
    dense = sum(
        2 * left.shape[0] * left.shape[1] * left.shape[2] * right.shape[2] for left, right in map(_forms, products)
    )
    return replay_seconds(products) * sum(product.flops for product in products) / dense if products else 0.0


def _forms(product: Product) -> tuple[Form, Form]:
    left, right = product.arguments
    assert isinstance(left, Form)
    assert isinstance(right, Form)
    return left, right


def _attention_products(plan: AttentionPlan, q: torch.Tensor, k: torch.Tensor, *, backward: bool) -> Iterator[Product]:
    """Yield scores and sums of values for each row, or the four products of their gradients.

    The heads that share a key are one product's lines. Scores that a kernel computes anew going back are not counted.
    """
    (_, heads, features), kv_heads = q.shape, k.shape[1]
    lengths, parents = plan.rows.lengths.tolist(), plan.rows.parents.tolist()
    for length, parent in zip(lengths, parents, strict=True):
        keys = length + (lengths[parent] if parent >= 0 else 0)
        lines = heads // kv_heads * length
        scored = heads * length * (keys - length + (length + 1) / 2)
        flops = round(2 * scored * features)
        for rows, inner, columns in ((lines, features, keys), (lines, keys, features)):
            yield _batched((kv_heads, rows, inner, columns), q.dtype, flops)
        if backward:
            for _ in range(2):
                yield _batched((kv_heads, keys, lines, features), q.dtype, flops)


def _batched(sizes: tuple[int, int, int, int], dtype: torch.dtype, flops: int) -> Product:
    n, rows, inner, columns = sizes
    shapes = ((n, rows, inner), (n, inner, columns))
    forms = (Form(shape, (shape[1] * shape[2], shape[2], 1), dtype, torch.device("cpu")) for shape in shapes)
    return Product(operation=torch.ops.aten.bmm.default, arguments=tuple(forms), keywords={}, flops=flops)

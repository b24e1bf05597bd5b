"""Hooks on the matmuls of the kernels, for counting and replaying them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch


class KernelProduct(NamedTuple):
    """A matmul of a kernel, [rows, inner] times [inner, columns], as Torch would see it."""

    rows: int
    inner: int
    columns: int
    second: torch.Tensor | None = None
    """The second factor [inner, columns]; None: it is an activation, as the first is, which is stored transposed."""


_watching: list[Callable[[KernelProduct], None]] = []


@contextmanager
def watched_products(use: Callable[[KernelProduct], None]) -> Iterator[None]:
    """Call ``use`` with every matmul of a kernel inside the block, without those of attention."""
    _watching.append(use)
    try:
        yield
    finally:
        _watching.remove(use)


def emit(products: Callable[[], Iterable[KernelProduct]]) -> None:
    """Call the hooks with the matmuls of a kernel call; without hooks nothing is described."""
    for product in products() if _watching else ():
        for use in _watching:
            use(product)


def forward_product(x_NI: torch.Tensor, weight_OI: torch.Tensor) -> KernelProduct:
    """Describe x W^T, the weight rounded as x is."""
    return KernelProduct(len(x_NI), x_NI.shape[1], len(weight_OI), weight_OI.to(x_NI.dtype).T)


def backward_product(dx_NI: torch.Tensor, weight_OI: torch.Tensor) -> KernelProduct:
    """Describe dx = dy W, the weight rounded as dx is."""
    return KernelProduct(len(dx_NI), len(weight_OI), weight_OI.shape[1], weight_OI.to(dx_NI.dtype))

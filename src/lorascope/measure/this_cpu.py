"""How fast this CPU computes, measured in a second or two with the shapes that are asked for."""

import time
from collections.abc import Callable

import torch

from lorascope.measure.cost_model import VALUE_BYTES, Product

_LARGEST = 1024
"""Larger sides of a product are measured at this size: the rate no longer depends on them."""
_REPEATS = (3, 20)
"""Fewest and most repeats; between them, as many as fit into ``_SECONDS``."""
_SECONDS = 0.01
_TOUCHED = 32 * 2**20
"""Values of the sum that shows the bandwidth: far more than caches hold."""
_ATTENTION_SHARE = 0.25
"""Rate of the attention kernel as a share of that of a large product."""


class ThisCpu:
    """A Machine that times a product of each form once, when it is first asked for."""

    overlaps = False

    def __init__(self) -> None:
        self._rates: dict[tuple[Product, str], float] = {}
        self.bandwidth = _bandwidth()
        self.launch_seconds = _launch_seconds()

    def product_seconds(self, product: Product, dtype: str) -> float:
        """Return the time at the rate that a product of this form, or one of at most 1,024 a side, was measured at."""
        if product.flops == 0:
            return 0.0
        measured = _measured_form(product)
        key = (measured, dtype)
        if key not in self._rates:
            self._rates[key] = measured.flops / _product_seconds(measured, getattr(torch, dtype))
        return product.flops / self._rates[key]

    def attention_seconds(self, flops: float, dtype: str) -> float:
        """Return the time of attention at a share of the rate of a large product."""
        large = Product(_LARGEST, _LARGEST, _LARGEST, "nt")
        return flops / large.flops * self.product_seconds(large, dtype) / _ATTENTION_SHARE

    def bytes_seconds(self, n_bytes: float) -> float:
        """Return the time that so many bytes take through memory."""
        return n_bytes / self.bandwidth

    def rate(self, dtype: str) -> float:
        """Return the operations a second of a large product."""
        large = Product(_LARGEST, _LARGEST, _LARGEST, "nt")
        return large.flops / self.product_seconds(large, dtype)


def _measured_form(product: Product) -> Product:
    """Bring the sides to sizes that are measured: tokens to a power of two, so that few forms occur."""
    tokens = product.inner if product.form == "tn" else product.rows
    rounded = min(_LARGEST, 1 << max(0, (tokens * 3 // 4).bit_length()))
    rows, inner, columns = (min(_LARGEST, side) for side in product[:3])
    if product.form == "tn":
        return Product(rows, rounded, columns, "tn")
    return Product(rounded, inner, columns, product.form)


def _product_seconds(product: Product, dtype: torch.dtype) -> float:
    generator = torch.Generator().manual_seed(0)

    def drawn(rows: int, columns: int, *, transposed: bool) -> torch.Tensor:
        # some units are quicker with constant numbers
        shape = (columns, rows) if transposed else (rows, columns)
        made = torch.rand(shape, generator=generator).to(dtype)
        return made.T if transposed else made

    first = drawn(product.rows, product.inner, transposed=product.form == "tn")
    second = drawn(product.inner, product.columns, transposed=product.form == "nt")
    return _best(lambda: torch.mm(first, second))


def _bandwidth() -> float:
    values = torch.zeros(_TOUCHED // 4, dtype=torch.float32)
    seconds = _best(lambda: values.add_(1.0))
    return 2 * values.numel() * VALUE_BYTES["float32"] / seconds


def _launch_seconds() -> float:
    """Time a small operation with its gradient bookkeeping, the mean of a thousand."""
    small = torch.zeros(8, requires_grad=True)
    n = 1000

    def many() -> None:
        for _ in range(n):
            small.add(1.0)

    return _best(many) / n


def _best(run: Callable[[], object]) -> float:
    """Return the shortest of several times: what else the machine does can only make one longer."""
    run()
    seconds: list[float] = []
    fewest, most = _REPEATS
    while len(seconds) < fewest or (len(seconds) < most and sum(seconds) < _SECONDS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)

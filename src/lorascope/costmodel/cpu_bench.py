"""How fast this CPU computes, measured in seconds with the shapes that are asked for."""

import time
from collections.abc import Callable, Hashable
from itertools import cycle
from statistics import median

import torch

from lorascope.costmodel.cost_types import VALUE_BYTES, Product

_LARGEST = 1024
"""Larger sides of a product are measured at this size: the rate no longer depends on them."""
_PARTS = 16
"""Most second factors of a product that take turns."""
_REPEATS = (5, 20)
"""Fewest and most repeats; between them, as many as fit into ``_SECONDS``."""
_SECONDS = 0.01
_ROUNDS = 2
"""How often everything is timed again, in turns."""
_POOL = 16 * 2**20
"""Values that operands are taken from, and that the sum reads which shows the bandwidth: more than caches hold."""
_ATTENTION_SHARE = 0.25
"""Rate of the attention kernel as a share of that of a large product."""

LOW_RANK_FACTOR = 1.35
"""How much longer than alone an adapter's products take in a step, where others have filled the caches in between and
results go to pages that the kernel has yet to give: 1.3 to 1.4 on SmolLM2-135M, 1.2 to 2 on a model of OPT-350m's
shape."""
OWN_PRODUCT_FACTOR = 0.62
OWN_LOW_RANK_FACTOR = 1.6
"""The same where the compiled kernels make the products, against the matrix library's alone, which are timed: the
base's together with activations that are counted apart, an adapter's with masks and sums. Fitted to three rounds of
SmolLM2-135M, which they then met to 3 %."""
HEAP_HOLES = 0.35
"""Memory that the C library's heap keeps between tensors of changing sizes, as a share of a pass's activations.

0.26 to 0.48 for ranks 8 to 256 of SmolLM2-135M and of a model of OPT-350m's shape, with glibc: what the kernel's
high-water mark showed beyond all parts."""


class ThisCpu:
    """A Machine that times what it is asked for, when it is first asked."""

    overlaps = False

    def __init__(self) -> None:
        self._pools: dict[str, torch.Tensor] = {}
        self._ways: dict[Hashable, Callable[[], float]] = {}
        self._found: dict[Hashable, float] = {}

    @property
    def bandwidth(self) -> float:
        """Bytes a second to and from memory."""
        return self._ask("bandwidth", _bandwidth)

    @property
    def activation_rate(self) -> float:
        """Bytes a second of operations other than products."""
        return self._ask("activation", _activation_rate)

    @property
    def launch_seconds(self) -> float:
        """Time to launch one operation."""
        return self._ask("launch", _launch_seconds)

    def settle(self) -> bool:
        """Time all that was asked for again, in rounds, and take medians.

        A machine that is slower for a second would otherwise slow some of it, and what is slowed decides ratios.
        """
        rounds = [self._found, *({key: way() for key, way in self._ways.items()} for _ in range(_ROUNDS))]
        self._found = {key: median(found[key] for found in rounds) for key in self._ways}
        return True

    def _ask(self, key: Hashable, way: Callable[[], float]) -> float:
        if key not in self._ways:
            self._ways[key], self._found[key] = way, way()
        return self._found[key]

    def product_seconds(self, product: Product, dtype: str) -> float:
        """Return the time at the rate that a product of this form, or one of at most 1,024 a side, was measured at."""
        if product.flops == 0:
            return 0.0
        measured = _measured_form(product)
        if dtype not in self._pools:
            self._pools[dtype] = _make_pool(getattr(torch, dtype))
        pool = self._pools[dtype]
        seconds = self._ask((measured, dtype), lambda: _product_seconds(measured, pool))
        return product.flops / measured.flops * seconds

    def attention_seconds(self, flops: float, dtype: str) -> float:
        """Return the time of attention at a share of the rate of a large product."""
        large = Product(_LARGEST, _LARGEST, _LARGEST, "nt")
        return flops / large.flops * self.product_seconds(large, dtype) / _ATTENTION_SHARE

    def bytes_seconds(self, n_bytes: float) -> float:
        """Return the time that so many bytes take through memory."""
        return n_bytes / self.bandwidth

    def activation_seconds(self, n_bytes: float) -> float:
        """Return the time that operations other than products take for so many bytes of activations."""
        return n_bytes / self.activation_rate


def _measured_form(product: Product) -> Product:
    """Bring the sides to sizes that are measured: tokens to a power of two, so that few forms occur."""
    tokens = product.inner if product.form == "tn" else product.rows
    rounded = min(_LARGEST, 1 << max(0, (tokens * 3 // 4).bit_length()))
    rows, inner, columns = (min(_LARGEST, side) for side in product[:3])
    if product.form == "tn":
        return Product(rows, rounded, columns, "tn")
    return Product(rounded, inner, columns, product.form)


def _product_seconds(product: Product, pool: torch.Tensor) -> float:
    """Time a product. Weights come from memory in a step, so that another part of the pool takes their place each time.

    The factors of a gradient ("tn") are what was computed last, and stay.
    """
    size = product.inner * product.columns
    first = _matrix(pool[: product.rows * product.inner], product.rows, product.inner, transposed=product.form == "tn")
    factors = [
        _matrix(pool[start : start + size], product.inner, product.columns, transposed=product.form == "nt")
        for start in range(0, min((1 if product.form == "tn" else _PARTS) * size, len(pool) - size + 1), size)
    ]
    turn, result = cycle(factors), first.new_empty(product.rows, product.columns)
    # new memory for each result would be measured with it, and takes another time each time
    return _typical(lambda: torch.mm(first, next(turn), out=result))


def _matrix(values: torch.Tensor, rows: int, columns: int, *, transposed: bool) -> torch.Tensor:
    return values.view(columns, rows).T if transposed else values.view(rows, columns)


def _make_pool(dtype: torch.dtype) -> torch.Tensor:
    # some units are quicker with constant numbers
    drawn = torch.rand(_POOL // 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    return drawn.repeat(16)


def _activation_rate() -> float:
    """Return the bytes a second of an activation function, which writes to new memory as a pass does."""
    values = torch.rand(512, 2048, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    seconds = _typical(lambda: torch.nn.functional.silu(values))
    return 2 * values.numel() * VALUE_BYTES["bfloat16"] / seconds


def _bandwidth() -> float:
    values = torch.zeros(_POOL, dtype=torch.float32)
    seconds = _typical(lambda: values.add_(1.0))
    return 2 * values.numel() * VALUE_BYTES["float32"] / seconds


def _launch_seconds() -> float:
    """Time a small operation with its gradient bookkeeping, the mean of a thousand."""
    small = torch.zeros(8, requires_grad=True)
    n = 1000

    def many() -> None:
        for _ in range(n):
            small.add(1.0)

    return _typical(many) / n


def _typical(run: Callable[[], object]) -> float:
    """Return the median of several times, without a first one."""
    run()
    seconds: list[float] = []
    fewest, most = _REPEATS
    while len(seconds) < fewest or (len(seconds) < most and sum(seconds) < _SECONDS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return median(seconds)

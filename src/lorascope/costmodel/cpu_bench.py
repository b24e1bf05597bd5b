"""Micro-benchmarks of this CPU: matrix products of given shapes, memory bandwidth, activations, launch overhead."""

import time
from collections.abc import Callable, Hashable
from itertools import cycle
from statistics import median

import torch

from lorascope.costmodel.cost_types import Matmul
from lorascope.units import DTYPE_BYTES

_LARGEST = 1024
"""Longer sides of a product are measured at this size, where the rate has stopped to depend on them."""
_OPERANDS = 16
"""Most second factors that a product alternates between."""
_REPEATS = (5, 20)
"""Fewest and most repeats; in between, as many as fit into ``_SECONDS``."""
_SECONDS = 0.01
_ROUNDS = 2
"""How often ``refine`` repeats everything."""
_POOL = 16 * 2**20
"""Elements of the buffer for operands and of the bandwidth test: more than caches hold."""
_ATTENTION_SHARE = 0.25
"""Rate of the attention kernel as a share of that of a large product."""


class CpuBenchmark:
    """Hardware model that measures each figure when it is first needed."""

    overlaps = False

    def __init__(self) -> None:
        self._pools: dict[str, torch.Tensor] = {}
        self._benchmarks: dict[Hashable, Callable[[], float]] = {}
        self._results: dict[Hashable, float] = {}

    @property
    def launch_seconds(self) -> float:
        """Time to launch one operation."""
        return self._measure("launch", _launch_seconds)

    def refine(self) -> bool:
        """Repeat all measurements in rounds and keep the medians.

        A slow moment of the machine would otherwise distort the ratios of those figures that it hit.
        """
        rounds = [self._results, *({key: run() for key, run in self._benchmarks.items()} for _ in range(_ROUNDS))]
        self._results = {key: median(results[key] for results in rounds) for key in self._benchmarks}
        return True

    def _measure(self, key: Hashable, benchmark: Callable[[], float]) -> float:
        if key not in self._benchmarks:
            self._benchmarks[key], self._results[key] = benchmark, benchmark()
        return self._results[key]

    def matmul_seconds(self, matmul: Matmul, dtype: str) -> float:
        """Return the time at the rate of a product of this layout with at most 1,024 rows and columns."""
        if matmul.flops == 0:
            return 0.0
        measured = _measured_shape(matmul)
        if dtype not in self._pools:
            self._pools[dtype] = _make_pool(getattr(torch, dtype))
        pool = self._pools[dtype]
        seconds = self._measure((measured, dtype), lambda: _matmul_seconds(measured, pool))
        return matmul.flops / measured.flops * seconds

    def attention_seconds(self, flops: float, dtype: str) -> float:
        """Return the time of attention at a share of the rate of a large product."""
        large = Matmul(_LARGEST, _LARGEST, _LARGEST, "nt")
        return flops / large.flops * self.matmul_seconds(large, dtype) / _ATTENTION_SHARE

    def bytes_seconds(self, n_bytes: float) -> float:
        """Return the time to move bytes through memory."""
        return n_bytes / self._measure("bandwidth", _bandwidth)

    def activation_seconds(self, n_bytes: float) -> float:
        """Return the time that elementwise operations take to move activations through memory."""
        return n_bytes / self._measure("activation", _activation_rate)


def _measured_shape(matmul: Matmul) -> Matmul:
    """Limit the sides and round the tokens to a power of two, so that few shapes are measured."""
    tokens = matmul.inner if matmul.layout == "tn" else matmul.rows
    rounded = min(_LARGEST, 1 << max(0, (tokens * 3 // 4).bit_length()))
    rows, inner, columns = (min(_LARGEST, side) for side in matmul[:3])
    if matmul.layout == "tn":
        return Matmul(rows, rounded, columns, "tn")
    return Matmul(rounded, inner, columns, matmul.layout)


def _matmul_seconds(matmul: Matmul, pool: torch.Tensor) -> float:
    """Time a product whose second factor changes each time: in a step, weights come from memory.

    The factors of a gradient ("tn") were just computed, so they stay in the caches.
    """
    size = matmul.inner * matmul.columns
    first = _matrix(pool[: matmul.rows * matmul.inner], matmul.rows, matmul.inner, transposed=matmul.layout == "tn")
    factors = [
        _matrix(pool[start : start + size], matmul.inner, matmul.columns, transposed=matmul.layout == "nt")
        for start in range(0, min((1 if matmul.layout == "tn" else _OPERANDS) * size, len(pool) - size + 1), size)
    ]
    second, result = cycle(factors), first.new_empty(matmul.rows, matmul.columns)
    # allocating each result would add a time that varies
    return _median_seconds(lambda: torch.mm(first, next(second), out=result))


def _matrix(values: torch.Tensor, rows: int, columns: int, *, transposed: bool) -> torch.Tensor:
    return values.view(columns, rows).T if transposed else values.view(rows, columns)


def _make_pool(dtype: torch.dtype) -> torch.Tensor:
    # some units are faster on constant numbers
    drawn = torch.rand(_POOL // 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    return drawn.repeat(16)


def _activation_rate() -> float:
    """Measure the bytes per second of an activation function that writes to new memory, as in a step."""
    values = torch.rand(512, 2048, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    seconds = _median_seconds(lambda: torch.nn.functional.silu(values))
    return 2 * values.numel() * DTYPE_BYTES["bfloat16"] / seconds


def _bandwidth() -> float:
    """Measure the bytes per second to and from memory."""
    values = torch.zeros(_POOL, dtype=torch.float32)
    seconds = _median_seconds(lambda: values.add_(1.0))
    return 2 * values.numel() * DTYPE_BYTES["float32"] / seconds


def _launch_seconds() -> float:
    """Measure the mean time of a thousand small operations with autograd's bookkeeping."""
    small = torch.zeros(8, requires_grad=True)
    n = 1000

    def launch() -> None:
        for _ in range(n):
            small.add(1.0)

    return _median_seconds(launch) / n


def _median_seconds(run: Callable[[], object]) -> float:
    """Return the median time of several runs after a first one."""
    run()
    seconds: list[float] = []
    fewest, most = _REPEATS
    while len(seconds) < fewest or (len(seconds) < most and sum(seconds) < _SECONDS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return median(seconds)

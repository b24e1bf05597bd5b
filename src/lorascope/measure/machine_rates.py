"""Peak rates of the device, measured: one large matrix product and one large copy."""

import time
from collections.abc import Callable

import torch

from lorascope.measure.clock import synchronise
from lorascope.records import MachineRates

_SIDE = {"cpu": 1024, "cuda": 8192}
"""Rows of the square matrices, whose product takes tenths of a second at most."""
_COPY_BYTES = 256_000_000
"""Larger than any cache."""
_SECONDS = 0.3
_MAX_REPEATS = 20


def machine_rates(device: torch.device, dtype: torch.dtype) -> MachineRates:
    """Measure both rates in about a second, each from the fastest of several repeats."""
    side = _SIDE[device.type]
    a, b = (torch.full((side, side), 0.5, dtype=dtype, device=device) for _ in range(2))
    result = torch.empty_like(a)
    product = _fastest(device, lambda: torch.mm(a, b, out=result))
    source = torch.ones(_COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = _fastest(device, lambda: target.copy_(source))
    return MachineRates(
        dtype=str(dtype).removeprefix("torch."),
        flops_per_second=2 * side**3 / product,
        bytes_per_second=2 * _COPY_BYTES / copy,
    )


def _fastest(device: torch.device, work: Callable[[], object]) -> float:
    """Return the shortest time of several repeats after a first one."""
    work()
    synchronise(device)
    fastest, began = float("inf"), time.perf_counter()
    for _ in range(_MAX_REPEATS):
        start = time.perf_counter()
        work()
        synchronise(device)
        now = time.perf_counter()
        fastest = min(fastest, now - start)
        if now - began > _SECONDS:
            break
    return fastest

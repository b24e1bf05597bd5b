"""Peak memory counters: Torch's allocator on a GPU, the kernel's high-water mark on Linux, samples elsewhere.

Samples miss short allocations. A process may reset its high-water mark on Linux, which makes peaks of phases exact.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

import torch

MemoryMethod = Literal["allocator", "kernel", "sampled"]
_SELF = Path("/proc/self")
_HIGH_WATER = re.compile(rb"^VmHWM:\s+(\d+) kB$", re.MULTILINE)
_RESET = "5"
"""Written to clear_refs, it resets the high-water mark to the current resident size: proc(5), since Linux 4.0."""


class PeakCounter(Protocol):
    """Measures the peak since the last reading."""

    method: MemoryMethod

    def take(self) -> int:
        """Return the highest bytes since the last call, and start over."""


class AllocatorPeak:
    """Peak of Torch's CUDA allocator: allocated and reserved bytes."""

    method: MemoryMethod = "allocator"

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.reserved_bytes = 0
        """Highest so far, over all calls."""
        torch.cuda.reset_peak_memory_stats(device)

    def take(self) -> int:
        """Return the highest allocated bytes since the last call."""
        peak = torch.cuda.max_memory_allocated(self._device)
        self.reserved_bytes = max(self.reserved_bytes, torch.cuda.max_memory_reserved(self._device))
        torch.cuda.reset_peak_memory_stats(self._device)
        return peak


class KernelPeak:
    """The kernel's high-water mark of resident memory.

    Raises:
        OSError: the system has no high-water mark, or does not let it be reset.
    """

    method: MemoryMethod = "kernel"

    def __init__(self, process: Path = _SELF) -> None:
        self._status, self._clear = process / "status", process / "clear_refs"
        self._clear.write_text(_RESET)
        self._read()

    def take(self) -> int:
        """Return the highest resident bytes since the last call."""
        peak = self._read()
        self._clear.write_text(_RESET)
        return peak

    def _read(self) -> int:
        found = _HIGH_WATER.search(self._status.read_bytes())
        if found is None:
            raise OSError(f"{self._status} has no VmHWM")
        return int(found[1]) * 1024


class SampledPeak:
    """Highest of sampled readings."""

    method: MemoryMethod = "sampled"

    def __init__(self, read: Callable[[], int]) -> None:
        self._read = read
        self._highest = read()

    def observe(self, n_bytes: int) -> None:
        """Add a reading."""
        self._highest = max(self._highest, n_bytes)

    def take(self) -> int:
        """Return the highest reading since the last call."""
        now = self._read()
        peak, self._highest = max(self._highest, now), now
        return peak


def peak_counter(device: torch.device, read: Callable[[], int]) -> PeakCounter:
    """Choose the most exact counter for a device; ``read`` returns the bytes in use."""
    if device.type == "cuda":
        return AllocatorPeak(device)
    try:
        return KernelPeak()
    except OSError:
        return SampledPeak(read)

"""The highest memory since the last look, by the most exact means there is.

Readings in time miss what is held for a moment, so that the process's own count is asked where somebody keeps one:
Torch's allocator on a GPU, and on Linux the kernel, whose high-water mark a process may reset.
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
"""Written to clear_refs it sets the high-water mark to what is resident now: proc(5), since Linux 4.0."""


class PeakCounter(Protocol):
    """Says how high memory rose since it was last asked."""

    method: MemoryMethod

    def take(self) -> int:
        """Return the highest bytes since the last call, and begin anew."""


class AllocatorPeak:
    """Torch's count of what it allocated on a GPU, and of what it reserved."""

    method: MemoryMethod = "allocator"

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.reserved_bytes = 0
        """Highest so far."""
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
        OSError: this system keeps none, or does not let it be reset.
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
    """The highest of readings at each look and in between, where nobody counts."""

    method: MemoryMethod = "sampled"

    def __init__(self, read: Callable[[], int]) -> None:
        self._read = read
        self._highest = read()

    def see(self, n_bytes: int) -> None:
        """Take a reading into account."""
        self._highest = max(self._highest, n_bytes)

    def take(self) -> int:
        """Return the highest reading since the last call."""
        now = self._read()
        peak, self._highest = max(self._highest, now), now
        return peak


def peak_counter(device: torch.device, read: Callable[[], int]) -> PeakCounter:
    """Choose the best counter for a device; ``read`` says what is in use now."""
    if device.type == "cuda":
        return AllocatorPeak(device)
    try:
        return KernelPeak()
    except OSError:
        return SampledPeak(read)

"""Memory while something runs: what the process holds, or on a GPU what Torch allocated."""

import ctypes
import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import psutil
import torch

from lorascope.measure.peak_memory import AllocatorPeak, MemoryMethod, PeakCounter, SampledPeak, peak_counter

INTERVAL_SECONDS = 0.02
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt(3): how much may lie free at the heap's end, and what is mapped by itself."""
_KEPT_BYTES = 2**31 - 1
_USUAL_BYTES = 2**25
"""What glibc itself takes for the latter at most, and half of what it then takes for the former."""


def release_memory(device: torch.device) -> None:
    """Give freed memory back, so that the next reading does not show what ran before."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif (libc := _glibc()) is not None:
        libc.malloc_trim(0)


@contextmanager
def kept_memory(device: torch.device) -> Iterator[None]:
    """In the block, keep what is freed for what is wanted next, as Torch's allocator on a GPU does.

    A step frees and wants tensors of many megabytes. glibc gives them back to the system, which has to map and clear
    their pages anew. After the block all that is free is given back, and thresholds are what glibc raises them to by
    itself. With another C library nothing changes.
    """
    libc = None if device.type == "cuda" else _glibc()
    if libc is None:
        yield
        return
    libc.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
    if not libc.mallopt(_MMAP_THRESHOLD, _KEPT_BYTES):  # refused by releases that know a limit
        libc.mallopt(_MMAP_THRESHOLD, _USUAL_BYTES)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_THRESHOLD, _USUAL_BYTES)
        libc.mallopt(_TRIM_THRESHOLD, 2 * _USUAL_BYTES)
        release_memory(device)


def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "malloc_trim") and hasattr(libc, "mallopt") else None


class MemoryMeter:
    """Reads memory in time, from a thread, and the peak of each phase inside a ``with`` block."""

    def __init__(self, device: torch.device, *, counter: PeakCounter | None = None) -> None:
        self._device = device
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="lorascope-memory", daemon=True)
        self._process = psutil.Process()
        self._phase = ""
        self._counter = counter or peak_counter(device, self.read)
        self.samples_bytes: list[int] = []
        self.base_bytes = 0
        """Read on entry."""
        self.peaks_bytes: dict[str, int] = {}
        """Highest of each phase by its name; what came before the first one is under the empty name."""

    @property
    def method(self) -> MemoryMethod:
        """Return who says how high a peak was."""
        return self._counter.method

    @property
    def peak_bytes(self) -> int:
        """Return the highest of all phases that have ended."""
        return max(self.peaks_bytes.values())

    @property
    def reserved_bytes(self) -> int | None:
        """Return the most that Torch's allocator on a GPU had reserved; None elsewhere."""
        return self._counter.reserved_bytes if isinstance(self._counter, AllocatorPeak) else None

    def read(self) -> int:
        """Return bytes in use now: allocated on the GPU, resident on the CPU."""
        if self._device.type == "cuda":
            return torch.cuda.memory_allocated(self._device)
        resident: int = self._process.memory_info().rss
        return resident

    def begin(self, phase: str) -> None:
        """End the phase that is, and begin one; a name that comes again goes on."""
        peak = self._counter.take()
        self.peaks_bytes[self._phase] = max(self.peaks_bytes.get(self._phase, 0), peak)
        self._phase = phase

    def __enter__(self) -> Self:
        self.base_bytes = self.read()
        self._counter.take()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.samples_bytes.append(self.read())
        self.begin("")

    def _sample(self) -> None:
        while not self._stop.wait(INTERVAL_SECONDS):
            reading = self.read()
            self.samples_bytes.append(reading)
            if isinstance(self._counter, SampledPeak):
                self._counter.see(reading)

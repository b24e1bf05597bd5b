"""Memory meter: resident memory of the process, or Torch's allocations on a GPU."""

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
"""Parameters of glibc's mallopt(3): free bytes kept at the end of the heap, and the size from which mmap is used."""
_MAX_BYTES = 2**31 - 1
_MAX_DYNAMIC_BYTES = 2**25
"""The highest value that glibc itself gives the latter; the former is twice that."""


def release_memory(device: torch.device) -> None:
    """Return freed memory to the system, so that it does not count in the next reading."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif (libc := _glibc()) is not None:
        libc.malloc_trim(0)


@contextmanager
def retain_freed_memory(device: torch.device) -> Iterator[None]:
    """In the block, keep freed memory in the process for later allocations, as Torch's allocator on a GPU does.

    A step frees and allocates tensors of many megabytes. glibc would return them to the system, which then has to map
    and clear their pages again. After the block free memory is returned, and the thresholds are the highest that glibc
    itself chooses. Other C libraries are left alone.
    """
    libc = None if device.type == "cuda" else _glibc()
    if libc is None:
        yield
        return
    libc.mallopt(_TRIM_THRESHOLD, _MAX_BYTES)
    if not libc.mallopt(_MMAP_THRESHOLD, _MAX_BYTES):  # some releases have a lower limit
        libc.mallopt(_MMAP_THRESHOLD, _MAX_DYNAMIC_BYTES)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_THRESHOLD, _MAX_DYNAMIC_BYTES)
        libc.mallopt(_TRIM_THRESHOLD, 2 * _MAX_DYNAMIC_BYTES)
        release_memory(device)


def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "malloc_trim") and hasattr(libc, "mallopt") else None


class MemoryMeter:
    """Samples memory from a thread and records the peak of each phase in a ``with`` block."""

    def __init__(self, device: torch.device, *, counter: PeakCounter | None = None) -> None:
        self._device = device
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="lorascope-memory", daemon=True)
        self._process = psutil.Process()
        self._phase = ""
        self._counter = counter or peak_counter(device, self.read)
        self.samples_bytes: list[int] = []
        self.base_bytes = 0
        """Bytes in use on entry."""
        self.peaks_bytes: dict[str, int] = {}
        """Peak of each phase by name; the empty name is the time before the first phase."""

    @property
    def method(self) -> MemoryMethod:
        """Return how peaks are measured."""
        return self._counter.method

    @property
    def peak_bytes(self) -> int:
        """Return the highest peak of all phases that have ended."""
        return max(self.peaks_bytes.values())

    @property
    def reserved_bytes(self) -> int | None:
        """Return the most that Torch's CUDA allocator reserved; None on a CPU."""
        return self._counter.reserved_bytes if isinstance(self._counter, AllocatorPeak) else None

    def read(self) -> int:
        """Return bytes in use: allocated on a GPU, resident on a CPU."""
        if self._device.type == "cuda":
            return torch.cuda.memory_allocated(self._device)
        resident: int = self._process.memory_info().rss
        return resident

    def begin(self, phase: str) -> None:
        """End the current phase and begin another; a repeated name continues its phase."""
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
                self._counter.observe(reading)

"""Memory while something runs: what the process holds, or on a GPU what Torch allocated."""

import ctypes
import gc
import sys
import threading
from types import TracebackType
from typing import Self

import psutil
import torch

_INTERVAL_SECONDS = 0.01


def release_memory(device: torch.device) -> None:
    """Give freed memory back, so that the next reading does not show what ran before."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):  # glibc only
            libc.malloc_trim(0)


class MemoryMeter:
    """Samples memory in a thread inside a ``with`` block; on a GPU the peak is the allocator's own count."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="lorascope-memory", daemon=True)
        self._process = psutil.Process()
        self.samples_bytes: list[int] = []
        self.base_bytes = 0
        """Read on entry."""
        self.peak_bytes = 0

    def read(self) -> int:
        """Return bytes in use now: allocated on the GPU, resident on the CPU."""
        if self._device.type == "cuda":
            return torch.cuda.memory_allocated(self._device)
        resident: int = self._process.memory_info().rss
        return resident

    def __enter__(self) -> Self:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        self.base_bytes = self.read()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.samples_bytes.append(self.read())
        self.peak_bytes = max(self.samples_bytes)
        if self._device.type == "cuda":
            self.peak_bytes = torch.cuda.max_memory_allocated(self._device)

    def _sample(self) -> None:
        while not self._stop.wait(_INTERVAL_SECONDS):
            self.samples_bytes.append(self.read())

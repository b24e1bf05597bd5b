"""Memory and CPU of this process, read in the background while a study runs."""

import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import psutil

from lorascope.records import SystemSample

_JOIN_SECONDS = 5.0


class SystemSampler:
    """Give ``sink`` a sample every ``interval_seconds`` and a last one at the end, from a thread of its own.

    The sink is called in that thread. An error there ends the sampling, not the run.
    """

    def __init__(self, interval_seconds: float, sink: Callable[[SystemSample], None]) -> None:
        self._interval_seconds = interval_seconds
        self._sink = sink
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lorascope-sampler", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        start = time.perf_counter()
        process = psutil.Process()
        try:
            # psutil's first CPU reading has nothing to compare with; it only starts the interval.
            process.cpu_percent()
            stopped = False
            while not stopped:
                stopped = self._stop.wait(self._interval_seconds)
                self._sink(
                    SystemSample(
                        seconds=time.perf_counter() - start,
                        rss_bytes=process.memory_info().rss,
                        cpu_percent=process.cpu_percent(),
                        device_allocated_bytes=_device_allocated_bytes(),
                    )
                )
        except (psutil.Error, sqlite3.Error):
            return


def _device_allocated_bytes() -> int | None:
    """Sum torch's allocations over the GPUs, without being the one that imports torch or starts CUDA."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is None or not hasattr(cuda, "is_initialized") or not cuda.is_initialized():
        return None
    return int(sum(cuda.memory_allocated(index) for index in range(cuda.device_count())))

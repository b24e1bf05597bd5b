"""The process, and the GPUs it trains on, read in the background while a study runs."""

import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import psutil

from lorascope.measure.memory_bandwidth import MemoryTraffic
from lorascope.measure.nvml import Gpus
from lorascope.records import GpuSample, SystemSample

_JOIN_SECONDS = 2.0

Sink = Callable[[SystemSample, Sequence[GpuSample]], None]


class SystemSampler:
    """Give ``sink`` a reading every ``interval_seconds`` and a last one at the end, from a thread of its own.

    All devices are opened, read and closed in that thread, and the sink is called in it, so that nothing which hangs
    there holds up what is measured. An error there ends the sampling, not the run.

    Args:
        interval_seconds: from the end of one reading to the next.
        sink: takes the process's reading and those of its GPUs.
        gpus: the GPUs to read; None: none.
    """

    def __init__(self, interval_seconds: float, sink: Sink, gpus: Gpus | None = None) -> None:
        self._interval_seconds = interval_seconds
        self._sink = sink
        self._gpus = gpus
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
        try:
            if self._gpus is None:
                self._read_until_stopped(None)
            else:
                with self._gpus as gpus:
                    self._read_until_stopped(gpus)
        except (psutil.Error, sqlite3.Error):
            return

    def _read_until_stopped(self, gpus: Gpus | None) -> None:
        start = time.perf_counter()
        process, traffic = psutil.Process(), MemoryTraffic()
        # psutil's first CPU reading has nothing to compare with; it only starts the interval.
        process.cpu_percent()
        stopped = False
        while not stopped:
            stopped = self._stop.wait(self._interval_seconds)
            seconds = time.perf_counter() - start
            sample = SystemSample(
                seconds=seconds,
                rss_bytes=process.memory_info().rss,
                cpu_percent=process.cpu_percent(),
                device_allocated_bytes=_device_allocated_bytes(),
                memory_traffic_bytes=traffic.read(),
            )
            self._sink(sample, gpus.sample(seconds) if gpus else ())


def _device_allocated_bytes() -> int | None:
    """Sum torch's allocations over the GPUs, without being the one that imports torch or starts CUDA."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is None or not hasattr(cuda, "is_initialized") or not cuda.is_initialized():
        return None
    return int(sum(cuda.memory_allocated(index) for index in range(cuda.device_count())))

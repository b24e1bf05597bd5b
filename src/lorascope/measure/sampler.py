"""Background sampler of the process and of the GPUs that it trains on."""

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
from lorascope.measure.process_tree import ProcessTree
from lorascope.records import GpuSample, SystemSample

_JOIN_SECONDS = 2.0

Sink = Callable[[SystemSample, Sequence[GpuSample]], None]


class SystemSampler:
    """Passes a sample to ``sink`` every ``interval_seconds``, and a last one at the end, from its own thread.

    The thread opens, reads and closes all devices and calls the sink, so that a driver that hangs does not block
    training. An error in it ends the sampling, not the run.

    Args:
        interval_seconds: time between the end of one sample and the next.
        sink: receives the process's sample and those of its GPUs.
        gpus: GPUs to read, if any.
        has_workers: training is in child processes: they count too, and Torch's allocations, which only their own
            process knows, are None.
    """

    def __init__(
        self, interval_seconds: float, sink: Sink, gpus: Gpus | None = None, *, has_workers: bool = False
    ) -> None:
        self._interval_seconds = interval_seconds
        self._sink = sink
        self._gpus = gpus
        self._has_workers = has_workers
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
        processes, traffic = ProcessTree(with_children=self._has_workers), MemoryTraffic()
        stopped = False
        while not stopped:
            stopped = self._stop.wait(self._interval_seconds)
            seconds = time.perf_counter() - start
            rss, percent = processes.read()
            sample = SystemSample(
                seconds=seconds,
                rss_bytes=rss,
                cpu_percent=percent,
                device_allocated_bytes=None if self._has_workers else _device_allocated_bytes(),
                memory_traffic_bytes=traffic.read(),
            )
            self._sink(sample, gpus.sample(seconds) if gpus else ())


def _device_allocated_bytes() -> int | None:
    """Sum Torch's allocations over all GPUs, without importing Torch or initialising CUDA."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is None or not hasattr(cuda, "is_initialized") or not cuda.is_initialized():
        return None
    return int(sum(cuda.memory_allocated(index) for index in range(cuda.device_count())))

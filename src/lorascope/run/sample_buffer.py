"""The readings of a whole run: taken in the background, kept in groups, and which GPU they are of."""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

import torch

from lorascope.measure.nvml import Gpus
from lorascope.measure.sampler import SystemSampler
from lorascope.records import GpuSample, SystemSample
from lorascope.store import StudyStore

_SAMPLE_SECONDS = 1.0
_GROUP_SECONDS = 10.0
"""Readings are written in groups this long, since the loop waits while the store writes."""


@contextmanager
def sampling(store: StudyStore, device: torch.device) -> Iterator[None]:
    """Sample in the background and keep the readings, in time behind those of earlier starts."""
    earlier = store.read(SystemSample)
    keeper = _Keeper(store, earlier[-1].seconds if earlier else 0.0)
    try:
        with SystemSampler(_SAMPLE_SECONDS, keeper.take, gpus_of(device)):
            yield
    finally:
        keeper.write()


def gpus_of(device: torch.device) -> Gpus | None:
    """Return the GPU to read, without naming it by its place: CUDA and NVML need not count in the same order."""
    if device.type != "cuda":
        return None
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    return Gpus(device.index or 0 if uuid is None else f"GPU-{uuid}")


class _Keeper:
    """Collects readings and writes them in groups."""

    def __init__(self, store: StudyStore, offset_seconds: float) -> None:
        self._store = store
        self._offset = offset_seconds
        self._samples: list[SystemSample] = []
        self._gpu_samples: list[GpuSample] = []
        self._written_at = time.monotonic()

    def take(self, sample: SystemSample, gpus: Sequence[GpuSample]) -> None:
        """Keep a reading."""
        self._samples.append(replace(sample, seconds=sample.seconds + self._offset))
        self._gpu_samples += [replace(gpu, seconds=gpu.seconds + self._offset) for gpu in gpus]
        if time.monotonic() - self._written_at >= _GROUP_SECONDS:
            self.write()

    def write(self) -> None:
        """Write what was collected."""
        samples, self._samples = self._samples, []
        gpu_samples, self._gpu_samples = self._gpu_samples, []
        with suppress(sqlite3.OperationalError):  # where the disk refuses, readings are lost and no more
            self._store.put_all([*samples, *gpu_samples])
        self._written_at = time.monotonic()

"""Background sampling of the process and its GPU during a run, stored in batches."""

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
_BATCH_SECONDS = 10.0
"""Samples of this long are written at once, as training waits while the store writes."""


@contextmanager
def sampling(store: StudyStore, device: torch.device, *, has_workers: bool = False, devices: int = 1) -> Iterator[None]:
    """Sample in the background; times continue behind those of earlier starts.

    Args:
        store: gets the samples.
        device: of the study.
        has_workers: other processes train.
        devices: on which they do, from the first on.
    """
    earlier = store.read(SystemSample)
    buffer = _SampleBuffer(store, earlier[-1].seconds if earlier else 0.0)
    try:
        gpus = gpus_of(device) if devices == 1 else _first_gpus(devices)
        with SystemSampler(_SAMPLE_SECONDS, buffer.take, gpus, has_workers=has_workers):
            yield
    finally:
        buffer.write()


def gpus_of(device: torch.device) -> Gpus | None:
    """Return the GPU to sample by its UUID, as CUDA and NVML may number GPUs differently; None on a CPU."""
    if device.type != "cuda":
        return None
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    return Gpus(device.index or 0 if uuid is None else f"GPU-{uuid}")


def _first_gpus(count: int) -> Gpus:
    """Return CUDA's first GPUs by their UUIDs; all visible ones where Torch does not know these."""
    found = [getattr(torch.cuda.get_device_properties(index), "uuid", None) for index in range(count)]
    return Gpus(None if None in found else [f"GPU-{uuid}" for uuid in found])


class _SampleBuffer:
    """Collects samples and writes them in batches."""

    def __init__(self, store: StudyStore, offset_seconds: float) -> None:
        self._store = store
        self._offset = offset_seconds
        self._samples: list[SystemSample] = []
        self._gpu_samples: list[GpuSample] = []
        self._written_at = time.monotonic()

    def take(self, sample: SystemSample, gpus: Sequence[GpuSample]) -> None:
        """Add a sample."""
        self._samples.append(replace(sample, seconds=sample.seconds + self._offset))
        self._gpu_samples += [replace(gpu, seconds=gpu.seconds + self._offset) for gpu in gpus]
        if time.monotonic() - self._written_at >= _BATCH_SECONDS:
            self.write()

    def write(self) -> None:
        """Write the collected samples."""
        samples, self._samples = self._samples, []
        gpu_samples, self._gpu_samples = self._gpu_samples, []
        with suppress(sqlite3.OperationalError):  # samples may be lost: a full disk must not stop training
            self._store.put_all([*samples, *gpu_samples])
        self._written_at = time.monotonic()

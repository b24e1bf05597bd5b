import sys
import threading
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Self

import psutil
import pytest

from lorascope.measure.nvml import Gpus
from lorascope.measure.sampler import SystemSampler
from lorascope.records import GpuSample, SystemSample


def nowhere(sample: SystemSample, gpus: Sequence[GpuSample]) -> None:
    pass


def test_sampler_samples_at_intervals_and_at_the_end() -> None:
    samples = []
    with SystemSampler(0.02, lambda sample, gpus: samples.append(sample)):
        while len(samples) < 3:
            time.sleep(0.01)
    count = len(samples)
    assert [sample.seconds for sample in samples] == sorted(sample.seconds for sample in samples)
    assert samples[-1].rss_bytes == pytest.approx(psutil.Process().memory_info().rss, rel=0.5)
    time.sleep(0.05)
    assert len(samples) == count


def test_sampler_gives_a_short_run_one_sample_without_waiting() -> None:
    samples = []
    with SystemSampler(threading.TIMEOUT_MAX, lambda *found: samples.append(found)):
        pass
    assert [gpus for _, gpus in samples] == [()]


def test_sampler_stops_on_an_error_of_the_block() -> None:
    with pytest.raises(RuntimeError, match="of the run"), SystemSampler(60.0, nowhere):
        raise RuntimeError("of the run")
    assert "lorascope-sampler" not in [thread.name for thread in threading.enumerate()]


class Stuck(Gpus):
    """GPUs whose driver does not answer any more."""

    def __init__(self) -> None:
        self.asked, self.released = threading.Event(), threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def sample(self, seconds: float) -> list[GpuSample]:
        self.asked.set()
        self.released.wait()
        return []


def test_sampler_does_not_wait_for_a_hanging_device() -> None:
    gpus = Stuck()
    with SystemSampler(0.01, nowhere, gpus):
        gpus.asked.wait()
        worked = sum(range(1000))
    assert worked == 499_500
    assert not gpus.released.is_set()
    gpus.released.set()


def test_sampler_ends_when_the_process_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(process: object) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil.Process, "memory_info", refuse)
    samples = []
    with SystemSampler(0.01, lambda *found: samples.append(found)):
        time.sleep(0.03)
    assert samples == []


def test_sampler_reads_device_memory_only_with_cuda_initialised(monkeypatch: pytest.MonkeyPatch) -> None:
    def sample_with(started: bool, *, has_workers: bool = False) -> int | None:
        cuda = SimpleNamespace(
            is_initialized=lambda: started, device_count=lambda: 2, memory_allocated=lambda index: 100 + index
        )
        monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
        samples = []
        with SystemSampler(60.0, lambda sample, gpus: samples.append(sample), has_workers=has_workers):
            pass
        return samples[0].device_allocated_bytes

    assert sample_with(started=True) == 201
    assert sample_with(started=False) is None
    assert sample_with(started=True, has_workers=True) is None

import time

import numpy as np
import pytest
import torch

from lorascope.measure.memory import MemoryMeter, release_memory

CPU = torch.device("cpu")
MB = 1_000_000


def fill(n_bytes: int) -> np.ndarray:
    """Memory that is really there: pages that were never written are not resident."""
    return np.ones(n_bytes, dtype=np.uint8)


def test_the_peak_shows_what_was_held_for_a_moment() -> None:
    release_memory(CPU)
    with MemoryMeter(CPU) as meter:
        held = fill(120 * MB)
        time.sleep(0.2)
        del held
        release_memory(CPU)
        time.sleep(0.1)
    assert 110 * MB < meter.peak_bytes - meter.base_bytes < 160 * MB
    assert meter.samples_bytes[-1] - meter.base_bytes < 60 * MB
    assert meter.peak_bytes == max(meter.samples_bytes)
    assert len(meter.samples_bytes) > 10


def test_a_meter_that_is_left_at_once_still_has_a_sample() -> None:
    with MemoryMeter(CPU) as meter:
        held = fill(80 * MB)
    assert meter.samples_bytes
    assert meter.peak_bytes - meter.base_bytes > 70 * MB
    del held


def test_the_thread_ends_with_the_block() -> None:
    with pytest.raises(KeyError), MemoryMeter(CPU) as meter:
        raise KeyError
    n_samples = len(meter.samples_bytes)
    time.sleep(0.1)
    assert len(meter.samples_bytes) == n_samples

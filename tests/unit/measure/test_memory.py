import mmap
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lorascope.measure.memory import INTERVAL_SECONDS, MemoryMeter, release_memory
from lorascope.measure.peak_memory import KernelPeak, PeakCounter, SampledPeak

CPU = torch.device("cpu")
MB = 1_000_000
NEAR = 8 * MB
"""What an interpreter that does other things may hold more or less from one moment to the next."""


def fill(n_bytes: int) -> np.ndarray:
    """Memory that is there and goes with the array: written, and not from a heap in which other tests left holes."""
    array = np.frombuffer(mmap.mmap(-1, n_bytes), dtype=np.uint8)
    array.fill(1)
    return array


def sampled() -> SampledPeak:
    return SampledPeak(MemoryMeter(CPU).read)


def wait_for_samples(meter: MemoryMeter, count: int) -> None:
    """Wait for so many more; the first may have been read before the call."""
    enough = len(meter.samples_bytes) + count
    while len(meter.samples_bytes) < enough:
        time.sleep(0.01)


@pytest.mark.parametrize("make", [KernelPeak, sampled])
def test_memory_meter_has_the_peak_of_each_phase(make: Callable[[], PeakCounter]) -> None:
    amounts = {"forward": (150, 40), "backward": (90, 220), "optimizer": (60,), "evaluation": (120,)}
    release_memory(CPU)
    with MemoryMeter(CPU, counter=make()) as meter:
        kept = fill(50 * MB)
        for phase, sizes in amounts.items():
            meter.begin(phase)
            for size in sizes:
                held = fill(size * MB)
                if make is sampled:
                    wait_for_samples(meter, 2)
                del held
        meter.begin("")
    for phase, sizes in amounts.items():
        assert meter.peaks_bytes[phase] - meter.base_bytes == pytest.approx((50 + max(sizes)) * MB, abs=NEAR)
    assert meter.peak_bytes == max(meter.peaks_bytes.values())
    assert meter.read() - meter.base_bytes == pytest.approx(50 * MB, abs=NEAR)
    del kept
    assert meter.read() - meter.base_bytes == pytest.approx(0, abs=NEAR)


def test_memory_meter_continues_a_repeated_phase() -> None:
    with MemoryMeter(CPU) as meter:
        for size in (45, 90, 40):
            meter.begin("forward")
            held = fill(size * MB)
            meter.begin("backward")
            del held
    assert meter.peaks_bytes["forward"] - meter.base_bytes == pytest.approx(90 * MB, abs=NEAR)


def test_memory_meter_samples_at_intervals_and_at_least_once() -> None:
    with MemoryMeter(CPU) as meter:
        held = fill(80 * MB)
        wait_for_samples(meter, 6)
    assert max(meter.samples_bytes) - meter.base_bytes == pytest.approx(80 * MB, abs=NEAR)
    with MemoryMeter(CPU) as short:
        pass
    assert len(short.samples_bytes) == 1
    del held


def test_memory_reading_takes_under_a_hundredth_of_its_interval() -> None:
    """In processor time, which other programs do not change."""
    meter = MemoryMeter(CPU)
    start = time.thread_time()
    for _ in range(200):
        meter.read()
    assert time.thread_time() - start < 0.01 * 200 * INTERVAL_SECONDS


def test_memory_thread_ends_with_the_block() -> None:
    with pytest.raises(KeyError), MemoryMeter(CPU) as meter:
        raise KeyError
    n_samples = len(meter.samples_bytes)
    time.sleep(0.1)
    assert len(meter.samples_bytes) == n_samples


def test_kernel_peak_refuses_a_system_without_high_water_mark(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="clear_refs"):
        KernelPeak(tmp_path / "absent")
    (tmp_path / "status").write_text("Name:\tpython\nVmRSS:\t 5 kB\n")
    with pytest.raises(OSError, match="VmHWM"):
        KernelPeak(tmp_path)
    (tmp_path / "status").write_text("VmPeak:\t 9 kB\nVmHWM:\t    7 kB\n")
    assert KernelPeak(tmp_path).take() == 7 * 1024
    assert (tmp_path / "clear_refs").read_text() == "5"


HELD = """
import ctypes, numpy as np, sys, torch
from lorascope.measure.memory import MemoryMeter, retain_freed_memory, release_memory
if not ctypes.CDLL(None).mallopt(-3, 2**31 - 1):
    sys.exit(print("refused"))
cpu = torch.device("cpu")
def held():
    "MB of a large array that the process still has after the array is gone."
    release_memory(cpu)
    before = MemoryMeter(cpu).read()
    array = np.ones(200_000_000, dtype=np.uint8)
    del array
    return (MemoryMeter(cpu).read() - before) / 1e6
found = []
try:
    with retain_freed_memory(cpu):
        found.append(held())
        raise KeyboardInterrupt
except KeyboardInterrupt:
    found.append(held())
with retain_freed_memory(torch.device("cuda")):
    found.append(held())
sys.platform = "darwin"
with retain_freed_memory(cpu):
    found.append(held())
print(*found)
"""


def test_freed_memory_is_retained_until_the_block_ends() -> None:
    """Not on a GPU, nor where there is no glibc. In a process of its own, whose memory nobody has cut up."""
    done = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True)
    if done.stdout == "refused\n":
        pytest.skip("this release of glibc maps what is larger than 32 MB by itself")
    assert [float(number) for number in done.stdout.split()] == pytest.approx([200, 0, 0, 0], abs=NEAR / MB)

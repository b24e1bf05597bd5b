"""Catalogue of NVIDIA GPUs: memory, bandwidth and dense matmul rates as NVIDIA publishes them.

docs/devices.md names the source of each figure; a test holds the page to this table.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lorascope.costmodel.cost_types import Matmul
from lorascope.units import DTYPE_BYTES, GIGABYTE

MATMUL_SHARE = 0.7
"""Share of the published matmul rate that large products reach."""
BANDWIDTH_SHARE = 0.8
"""Share of the published bandwidth that long reads and writes reach."""
ATTENTION_SHARE = 0.35
"""Share of the published matmul rate that attention reaches, whose products are small."""
LAUNCH_SECONDS = 6e-6
"""Time that Python and Torch take to launch an operation, averaged over both directions."""
CONTEXT_BYTES = 600_000_000
"""Memory of the driver, its libraries and their workspace."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """A device with its published figures."""

    name: str
    memory_bytes: int
    bandwidth: float
    """Bytes per second."""
    rates: Mapping[str, float]
    """Operations per second of dense products in each precision, accumulated in float32."""


def _device(name: str, gigabytes: int, gigabytes_a_second: float, **teraflops: float) -> Device:
    return Device(
        name=name,
        memory_bytes=gigabytes * GIGABYTE,
        bandwidth=gigabytes_a_second * GIGABYTE,
        rates={dtype: rate * 1e12 for dtype, rate in teraflops.items()},
    )


DEVICES = {
    device.name.lower(): device
    for device in (
        _device("T4", 16, 320, float32=8.1, float16=65),
        _device("L4", 24, 300, float32=30.3, float16=121, bfloat16=121),
        _device("A10G", 24, 600, float32=35, float16=70, bfloat16=70),
        _device("A100-40GB", 40, 1555, float32=19.5, float16=312, bfloat16=312),
        _device("A100-80GB", 80, 2039, float32=19.5, float16=312, bfloat16=312),
        _device("L40S", 48, 864, float32=91.6, float16=362, bfloat16=362),
        _device("RTX-3090", 24, 936, float32=35.6, float16=71, bfloat16=71),
        _device("RTX-4090", 24, 1008, float32=82.6, float16=165.2, bfloat16=165.2),
        _device("RTX-5090", 32, 1792, float32=104.8, float16=209.5, bfloat16=209.5),
        _device("H100", 80, 3350, float32=67, float16=989, bfloat16=989),
        _device("H200", 141, 4800, float32=67, float16=989, bfloat16=989),
        _device("B200", 180, 7700, float32=75, float16=2250, bfloat16=2250),
    )
}


def known_devices() -> str:
    """List the names of all devices."""
    return ", ".join(device.name for device in DEVICES.values())


def find_device(name: str) -> Device | None:
    """Find a device by its name, whatever its case and separators; None if it is not listed."""
    return DEVICES.get(_plain(name))


_OTHER_BOARDS = {"laptop", "ti", "super", "nvl", "d", "mig", "grid"}
"""Words in a driver's name that denote a different board, or a partition of one."""


def recognise(full_name: str) -> Device | None:
    """Find the device by its driver's name, such as ``NVIDIA A100-SXM4-80GB``; None for a board that is not listed."""
    words = set(_plain(full_name).replace("nvidia", "").replace("geforce", "").replace("tesla", "").split("-"))
    if words & _OTHER_BOARDS or {"h100", "pcie"} <= words or any(re.fullmatch(r"\d+[qcab]", word) for word in words):
        return None
    fitting = [device for key, device in DEVICES.items() if set(key.split("-")) <= words]
    return max(fitting, key=lambda device: len(device.name), default=None)


def _plain(name: str) -> str:
    return "-".join(name.lower().replace("_", " ").replace("-", " ").split())


@dataclass(frozen=True, slots=True)
class Roofline:
    """Hardware model from a device's published figures."""

    device: Device
    overlaps: bool = True
    launch_seconds: float = LAUNCH_SECONDS

    def matmul_seconds(self, matmul: Matmul, dtype: str) -> float:
        """Return the time of the arithmetic or of the memory traffic, whichever is longer."""
        arithmetic = matmul.flops / (MATMUL_SHARE * self.device.rates[dtype])
        return max(arithmetic, self.bytes_seconds(matmul.values * DTYPE_BYTES[dtype]))

    def attention_seconds(self, flops: float, dtype: str) -> float:
        """Return the time of attention with this many operations."""
        return flops / (ATTENTION_SHARE * self.device.rates[dtype])

    def bytes_seconds(self, n_bytes: float) -> float:
        """Return the time to move bytes through memory."""
        return n_bytes / (BANDWIDTH_SHARE * self.device.bandwidth)

    def activation_seconds(self, n_bytes: float) -> float:
        """Return the same: memory limits a GPU's elementwise operations."""
        return self.bytes_seconds(n_bytes)

    def refine(self) -> bool:
        """Do nothing: these rates are published."""
        return False

"""Samples of the process and its GPUs in time; ``records`` has them with the other records."""

from lorascope.record_registry import record


@record("samples")
class SystemSample:
    """The process, with its worker processes, at one moment of a run."""

    seconds: float
    """Since the run's process began sampling; restarts continue behind the last sample."""
    rss_bytes: int
    cpu_percent: float
    """Of one core: 200 is two cores busy."""
    device_allocated_bytes: int | None
    """Torch's allocated bytes on the GPU; None without one, and where worker processes train."""
    memory_traffic_bytes: int | None
    """The machine's count of bytes that went between its processors and memory; None where it keeps none."""


@record("gpu_samples")
class GpuSample:
    """One GPU at one moment, as NVIDIA's management library tells; None is a counter that it does not support."""

    seconds: float
    """As of a SystemSample; in a solo run, since that began."""
    rank: int | None
    """The rank of the solo run; None in the rest of the run."""
    targets: str = ""
    """Name of the solo run's set of target modules; empty where the study has one."""
    uuid: str
    name: str
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    utilization_percent: int | None
    """Share of time in which a kernel ran."""
    memory_utilization_percent: int | None
    """Share of time in which device memory was read or written."""
    power_watts: float | None
    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    temperature_celsius: int | None
    throttle_reasons: int | None
    """NVML's bit mask of what held the clocks down."""

"""GPU counters during solo runs."""

from collections.abc import Sequence

from lorascope.analysis.cost.schema import GpuSection
from lorascope.records import GpuSample, SoloRun

_IDLE = 0x1
REASONS = {
    0x2: "application clocks",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
    0x100: "display clocks",
}
"""NVML's nvmlClocksThrottleReasons, idling left out."""


def gpu_section(samples: Sequence[GpuSample], run: SoloRun) -> GpuSection | None:
    """Summarize the readings of a GPU during the solo runs of this run's rank; None where it ran on none."""
    if run.memory_method != "allocator":
        return None
    own = [sample for sample in samples if sample.rank == run.rank]
    used, total = _mean([s.memory_used_bytes for s in own]), _mean([s.memory_total_bytes for s in own])
    return GpuSection(
        name=own[0].name if own else "",
        readings=len(own),
        memory_used_bytes=None if used is None else round(used),
        memory_used_max_bytes=_highest([sample.memory_used_bytes for sample in own]),
        memory_used_percent=100 * used / total if used is not None and total else None,
        utilization_percent=_mean([sample.utilization_percent for sample in own]),
        memory_utilization_percent=_mean([sample.memory_utilization_percent for sample in own]),
        power_watts=_mean([sample.power_watts for sample in own]),
        sm_clock_mhz=_mean([sample.sm_clock_mhz for sample in own]),
        memory_clock_mhz=_mean([sample.memory_clock_mhz for sample in own]),
        temperature_celsius=_highest([sample.temperature_celsius for sample in own]),
        throttle_reasons=throttle_reasons([sample.throttle_reasons or 0 for sample in own]),
        allocated_bytes=run.held_bytes,
        peak_allocated_bytes=run.peak_bytes,
        peak_reserved_bytes=run.reserved_peak_bytes,
    )


def throttle_reasons(masks: Sequence[int]) -> tuple[str, ...]:
    """Name the reasons for lower clocks at any reading; unknown bits keep their number."""
    bits = [1 << place for place in range(64) if any(mask >> place & 1 for mask in masks)]
    return tuple(REASONS.get(bit, f"reason {bit:#x}") for bit in bits if bit != _IDLE)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _highest(values: Sequence[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)

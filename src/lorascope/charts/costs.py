"""What each rank costs, as plain numbers; nothing here draws."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lorascope.analysis import StudyData, StudySummary
from lorascope.analysis.summary import RankSection
from lorascope.charts.downsample import keep_peaks
from lorascope.records import GpuSample
from lorascope.text.language import tr
from lorascope.units import to_megabytes

STEP_PHASES = ("forward", "backward", "optimizer")
MAX_SAMPLES = 600
"""Points of one curve over time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RankValue:
    """One number of a rank."""

    rank: int
    value: float


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryShare:
    """One part of the memory at a rank's peak."""

    rank: int
    part: str
    """Its name, for people."""
    megabytes: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One quantity over time."""

    name: str
    """What it is a series of, for people; a rank's number where it is a rank's."""
    times: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TradeOff:
    """A rank's held-out loss above the best rank's, with its 95% interval, beside what the rank costs."""

    rank: int
    excess: float
    low: float
    high: float
    cost: float
    pareto: bool
    """True where no other rank is as good in loss, time of a step and peak memory and better in one of them."""


def runtime_by_rank(summary: StudySummary) -> tuple[RankValue, ...]:
    """Take the time that training each rank alone would take, in seconds."""
    known = [(part.rank, part.runtime_seconds) for part in summary.ranks]
    return tuple(RankValue(rank=rank, value=seconds) for rank, seconds in known if seconds is not None)


def memory_split(data: StudyData, summary: StudySummary) -> tuple[MemoryShare, ...]:
    """Split each rank's peak of a step, in MB, as it was measured phase by phase, or as far as sizes alone tell."""
    shares = []
    for part in summary.ranks:
        known = _measured_split(part) or _counted_split(data, part.rank)
        shares += [MemoryShare(rank=part.rank, part=name, megabytes=to_megabytes(size)) for name, size in known.items()]
    return tuple(shares)


def _measured_split(part: RankSection) -> dict[str, int]:
    """Take the phase of a step in which memory is highest."""
    phases = [split for split in part.cost.split if split.phase in STEP_PHASES] if part.cost else []
    if not phases:
        return {}
    peak = max(phases, key=lambda split: split.total)
    return {
        tr("program"): peak.program,
        tr("base model"): peak.base,
        tr("adapter"): peak.adapter,
        tr("gradient"): peak.gradient,
        tr("optimizer"): peak.optimizer,
        tr("activations"): peak.activations,
        tr("the rest"): max(0, peak.rest),
    }


def _counted_split(data: StudyData, rank: int) -> dict[str, int]:
    cost, adapter = data.costs.get(rank), data.adapters.get(rank)
    if cost is None or adapter is None:
        return {}
    known = {
        tr("base model and program"): cost.base_memory_bytes,
        tr("adapter"): adapter.parameter_bytes,
        tr("gradient"): adapter.gradient_bytes,
        tr("optimizer"): adapter.optimizer_bytes,
    }
    return known | {tr("activations and the rest"): max(0, cost.peak_memory_bytes - sum(known.values()))}


def gpu_series(data: StudyData) -> dict[str, tuple[Series, ...]]:
    """Take what the GPU told while each rank trained alone, in percent, by the name of its chart; only what it told."""
    readings: dict[str, Callable[[GpuSample], float | None]] = {
        "gpu_memory": _memory_percent,
        "gpu_memory_access": lambda sample: sample.memory_utilization_percent,
        "gpu_utilization": lambda sample: sample.utilization_percent,
    }
    found = {}
    for name, read in readings.items():
        series = [_of_rank(data, rank, read) for rank in data.ranks]
        if any(one.values for one in series):
            found[name] = tuple(one for one in series if one.values)
    return found


def _memory_percent(sample: GpuSample) -> float | None:
    if sample.memory_used_bytes is None or not sample.memory_total_bytes:
        return None
    return 100 * sample.memory_used_bytes / sample.memory_total_bytes


def _of_rank(data: StudyData, rank: int, read: Callable[[GpuSample], float | None]) -> Series:
    points: list[tuple[float, float]] = []
    began = last = 0.0
    for sample in data.gpu_samples:
        value = read(sample)
        if sample.rank != rank or value is None:
            continue
        if sample.seconds < last:  # each of a rank's turns counts from its own beginning
            began = points[-1][0]
        last = sample.seconds
        points.append((began + sample.seconds, value))
    kept = keep_peaks(np.array([value for _, value in points]), MAX_SAMPLES)
    return Series(
        name=str(rank),
        times=tuple(points[place][0] for place in kept),
        values=tuple(float(points[place][1]) for place in kept),
    )


def memory_over_readings(data: StudyData) -> tuple[Series, ...]:
    """Take the memory in MB while each rank trained alone, reading by reading."""
    return tuple(
        _series(str(rank), list(range(1, len(cost.memory_samples_bytes) + 1)), cost.memory_samples_bytes)
        for rank, cost in data.costs.items()
        if cost.memory_samples_bytes
    )


def memory_over_time(data: StudyData) -> tuple[Series, ...]:
    """Take the memory in MB over the whole study: of the process, and what Torch holds on a GPU."""
    if len(data.samples) < 2:
        return ()
    minutes = [sample.seconds / 60 for sample in data.samples]
    series = [_series(tr("process"), minutes, [sample.rss_bytes for sample in data.samples])]
    on_device = [
        (minute, sample.device_allocated_bytes)
        for minute, sample in zip(minutes, data.samples, strict=True)
        if sample.device_allocated_bytes is not None
    ]
    if on_device:
        times, sizes = zip(*on_device, strict=True)
        series.append(_series(tr("GPU, allocated by Torch"), times, sizes))
    return tuple(series)


def loss_against_runtime(summary: StudySummary) -> tuple[TradeOff, ...]:
    """Put each rank's excess over the best beside the time of training it alone, in seconds."""
    return _trade_offs(summary, {part.rank: part.runtime_seconds for part in summary.ranks})


def loss_against_memory(summary: StudySummary) -> tuple[TradeOff, ...]:
    """Put each rank's excess over the best beside its peak memory, in MB."""
    peaks = {part.rank: part.peak_memory_bytes for part in summary.ranks}
    return _trade_offs(summary, {rank: None if peak is None else to_megabytes(peak) for rank, peak in peaks.items()})


def _trade_offs(summary: StudySummary, costs: Mapping[int, float | None]) -> tuple[TradeOff, ...]:
    points = []
    for part in summary.ranks:
        cost = costs[part.rank]
        if part.excess_loss is not None and part.excess_loss_ci95 is not None and cost is not None:
            low, high = part.excess_loss_ci95
            on_front = part.pareto is True
            points.append(
                TradeOff(rank=part.rank, excess=part.excess_loss, low=low, high=high, cost=cost, pareto=on_front)
            )
    return tuple(points) if len(points) > 1 else ()


def _series(name: str, times: Sequence[float], sizes: Sequence[int]) -> Series:
    values = np.array(sizes, dtype=np.float64)
    kept = keep_peaks(values, MAX_SAMPLES)
    return Series(
        name=name,
        times=tuple(times[place] for place in kept),
        values=tuple(to_megabytes(values[place]) for place in kept),
    )

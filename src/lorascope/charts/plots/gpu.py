"""Counters of the GPU while each rank trains alone: memory in use, memory access, utilisation."""

from collections.abc import Callable, Iterator

from lorascope.analysis import StudyData, StudySummary
from lorascope.charts.chart import Chart
from lorascope.charts.series import Series, rank_series_spec, thinned
from lorascope.records import GpuSample
from lorascope.text.language import tr


def charts(study: StudyData, _: StudySummary) -> Iterator[Chart]:
    """Make a chart of each counter that the GPU has."""
    titles = {
        "gpu_memory": tr("GPU memory in use (%)"),
        "gpu_memory_access": tr("Time in which GPU memory was read or written (%)"),
        "gpu_utilization": tr("Time in which the GPU computed (%)"),
    }
    for name, series in gpu_series(study).items():
        caption = tr("While each rank trained alone, as NVIDIA's library tells.")
        spec = rank_series_spec(series, tr("time (s)"), titles[name], study.ranks)
        yield Chart(name=name, section="costs", title=titles[name], caption=caption, spec=spec)


def gpu_series(study: StudyData) -> dict[str, tuple[Series, ...]]:
    """Take each counter in percent, by the name of its chart: a series for each rank that has readings."""
    readings: dict[str, Callable[[GpuSample], float | None]] = {
        "gpu_memory": _memory_percent,
        "gpu_memory_access": lambda sample: sample.memory_utilization_percent,
        "gpu_utilization": lambda sample: sample.utilization_percent,
    }
    series = {name: tuple(_of_rank(study, rank, read) for rank in study.ranks) for name, read in readings.items()}
    known = {name: tuple(one for one in ranks if one.values) for name, ranks in series.items()}
    return {name: ranks for name, ranks in known.items() if ranks}


def _memory_percent(sample: GpuSample) -> float | None:
    if sample.memory_used_bytes is None or not sample.memory_total_bytes:
        return None
    return 100 * sample.memory_used_bytes / sample.memory_total_bytes


def _of_rank(study: StudyData, rank: int, read: Callable[[GpuSample], float | None]) -> Series:
    times: list[float] = []
    values: list[float] = []
    began = last = 0.0
    for sample in study.gpu_samples:
        value = read(sample)
        if sample.rank != rank or value is None:
            continue
        if sample.seconds < last:  # each solo run of a rank counts from its own beginning
            began = times[-1]
        last = sample.seconds
        times.append(began + sample.seconds)
        values.append(value)
    return thinned(str(rank), times, values)

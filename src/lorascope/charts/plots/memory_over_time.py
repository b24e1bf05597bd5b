"""Memory over the study."""

from collections.abc import Iterator

from lorascope.analysis import StudyData, StudySummary
from lorascope.charts.chart import Chart
from lorascope.charts.series import Series, series_spec, thinned
from lorascope.text.language import tr
from lorascope.text.metrics import metric_title
from lorascope.units import to_megabytes, to_minutes


def charts(study: StudyData, _: StudySummary) -> Iterator[Chart]:
    """Make the chart where memory was sampled."""
    series = memory_over_time(study)
    if series:
        caption = tr("Memory of the process over the whole study, all trials and measurements together.")
        spec = series_spec(series, tr("time (min)"), metric_title("memory"))
        yield Chart(
            name="memory_over_time", section="costs", title=tr("Memory over the study"), caption=caption, spec=spec
        )


def memory_over_time(study: StudyData) -> tuple[Series, ...]:
    """Take the memory in MB over minutes: of the process, and what Torch allocated on a GPU."""
    if len(study.samples) < 2:
        return ()
    sizes = {
        tr("process"): [(sample.seconds, sample.rss_bytes) for sample in study.samples],
        tr("GPU, allocated by Torch"): [
            (sample.seconds, sample.device_allocated_bytes)
            for sample in study.samples
            if sample.device_allocated_bytes is not None
        ],
    }
    return tuple(
        thinned(name, [to_minutes(at) for at, _ in points], [to_megabytes(size) for _, size in points])
        for name, points in sizes.items()
        if points
    )

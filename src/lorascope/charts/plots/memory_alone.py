"""Memory while a rank trained alone."""

from collections.abc import Iterator

from lorascope.analysis import StudyData, StudySummary
from lorascope.charts.chart import Chart
from lorascope.charts.series import Series, rank_series_spec, thinned
from lorascope.text.language import tr
from lorascope.text.metrics import metric_title
from lorascope.units import to_megabytes


def charts(study: StudyData, _: StudySummary) -> Iterator[Chart]:
    """Make the chart where memory was sampled."""
    series = memory_over_readings(study)
    if series:
        yield Chart(
            name="memory_alone",
            section="costs",
            title=tr("Memory while a rank trained alone"),
            caption=tr("Readings of memory, one after the other, while one rank trained alone, warm-up included."),
            spec=rank_series_spec(series, tr("reading"), metric_title("memory"), study.ranks),
        )


def memory_over_readings(study: StudyData) -> tuple[Series, ...]:
    """Take the memory in MB while each rank trained alone, by number of the reading."""
    known = {rank: cost.samples_bytes for rank, cost in study.costs.items() if cost.samples_bytes}
    return tuple(
        thinned(str(rank), range(1, len(sizes) + 1), list(map(to_megabytes, sizes))) for rank, sizes in known.items()
    )

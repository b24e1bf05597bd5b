"""The report's charts, as parts of the page."""

from lorascope.analysis import StudyData, StudySummary
from lorascope.charts.registry import make_charts
from lorascope.web.live_charts import Chart, Part

_GROWING = ("train_loss", "eval_loss", "memory_over_time")
"""Charts of the report that the page draws itself, since their lines grow."""


def summary_charts(data: StudyData, summary: StudySummary) -> list[Part]:
    """Take all charts of the report that are made from the summary."""
    return [
        Chart(name=chart.name, title=chart.title, caption=chart.caption, spec=chart.page_spec).part()
        for chart in make_charts(data, summary).values()
        if chart.name not in _GROWING
    ]

"""The report's charts, as parts of the page."""

from lorascope.analysis import StudyData, StudySummary
from lorascope.charts.registry import draw
from lorascope.web.live_charts import Chart, Part

_GROWING = ("train_loss", "eval_loss", "memory_over_time")
"""Charts of the report that the page draws itself, since their lines grow."""


def summary_charts(data: StudyData, summary: StudySummary) -> list[Part]:
    """Take all charts of the report that are made from the summary."""
    return [
        Chart(name=picture.name, title=picture.title, caption=picture.caption, spec=picture.page_spec).part()
        for picture in draw(data, summary).values()
        if picture.name not in _GROWING
    ]

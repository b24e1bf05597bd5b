"""Held-out loss by the time that each rank takes alone."""

from collections.abc import Iterator

from lorascope.analysis import StudyData, StudySummary
from lorascope.charts.chart import Chart
from lorascope.charts.plots.loss_by_step import eval_loss_by_step, loss_by_step_spec
from lorascope.text.language import tr


def charts(study: StudyData, summary: StudySummary) -> Iterator[Chart]:
    """Make the chart where the step of every rank was measured."""
    held_out = eval_loss_by_step(study, summary)
    if held_out.curves and all(curve.seconds for curve in held_out.curves):
        yield Chart(
            name="eval_loss_by_time",
            section="trade_offs",
            title=tr("Held-out loss by time"),
            caption=tr("Time of each rank trained alone: its steps times the measured time of one."),
            spec=loss_by_step_spec(held_out, study.ranks, along="seconds"),
            interactive_spec=loss_by_step_spec(held_out, study.ranks, along="seconds", hover=True),
        )

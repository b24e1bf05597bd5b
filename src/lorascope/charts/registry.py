"""The charts of a report, in its order: to add one, write a module in ``plots`` and list it here."""

from collections.abc import Iterable
from typing import Protocol

from lorascope.analysis import StudyData, StudySummary
from lorascope.charts.chart import Chart
from lorascope.charts.plots import (
    effective_rank,
    eval_loss_by_rate,
    eval_loss_by_time,
    eval_loss_map,
    forgetting,
    gain_per_doubling,
    gpu,
    loss_against_cost,
    loss_by_rank,
    loss_by_step,
    memory_alone,
    memory_over_time,
    memory_split,
    predicted,
    runtime,
    truncated_loss,
)


class ChartModule(Protocol):
    """A module in ``plots``."""

    __name__: str

    def charts(self, study: StudyData, summary: StudySummary, /) -> Iterable[Chart]:
        """Yield the charts that have something to show, in the language in use."""


MODULES: tuple[ChartModule, ...] = (
    loss_by_step,
    eval_loss_by_rate,
    eval_loss_map,
    loss_by_rank,
    gain_per_doubling,
    truncated_loss,
    effective_rank,
    runtime,
    memory_split,
    memory_alone,
    memory_over_time,
    gpu,
    predicted,
    loss_against_cost,
    eval_loss_by_time,
    forgetting,
)


def make_charts(study: StudyData, summary: StudySummary) -> dict[str, Chart]:
    """Make every chart that has something to show, by name, in the order of the report."""
    return {chart.name: chart for module in MODULES for chart in module.charts(study, summary)}

"""The charts of a report, in its order: to add one, write a module in ``plots`` and name it here."""

from collections.abc import Iterable
from importlib import import_module
from typing import Protocol, cast

from lorascope.analysis import StudyData, StudySummary
from lorascope.charts.chart import Chart

MODULES = (
    "loss_by_step",
    "training_signals",
    "eval_loss_by_rate",
    "loss_against_cost",
    "truncated_loss",
    "loss_by_rank",
    "gain_per_doubling",
    "effective_rank",
    "forgetting",
    "predicted",
    "runtime",
    "memory_split",
    "memory_alone",
    "memory_over_time",
    "gpu",
)
"""Modules of ``lorascope.charts.plots``."""


class ChartModule(Protocol):
    """A module in ``plots``."""

    def charts(self, study: StudyData, summary: StudySummary, /) -> Iterable[Chart]:
        """Yield the charts that have something to show, in the language in use."""


def make_charts(study: StudyData, summary: StudySummary) -> dict[str, Chart]:
    """Make every chart that has something to show, by name, in the order of the report.

    Of several sets of target modules, the charts show the one that the summary is about.
    """
    study = study.of_set(summary.study.targets)
    modules = (cast("ChartModule", import_module(f"lorascope.charts.plots.{name}")) for name in MODULES)
    return {chart.name: chart for module in modules for chart in module.charts(study, summary)}

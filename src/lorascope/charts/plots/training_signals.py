"""Gradient norm and learning rate by step: a line for each rank."""

from collections.abc import Iterator
from typing import Literal

import numpy as np

from lorascope.analysis import StudyData, StudySummary
from lorascope.charts.chart import Chart
from lorascope.charts.plots.loss_by_step import shown_trials
from lorascope.charts.series import Series, rank_series_spec, thinned
from lorascope.text.language import tr
from lorascope.text.metrics import metric_title

Signal = Literal["grad_norm", "learning_rate"]


def charts(study: StudyData, summary: StudySummary) -> Iterator[Chart]:
    """Make both charts where steps were trained."""
    described: tuple[tuple[Signal, str, str], ...] = (
        ("grad_norm", tr("Gradient norm"), tr("Norm of the gradient before clipping, of the loss curves' trials.")),
        ("learning_rate", tr("Learning rate"), tr("Learning rate of each step, of the loss curves' trials.")),
    )
    for signal, title, caption in described:
        series = signal_by_step(study, summary, signal)
        if series:
            spec = rank_series_spec(series, metric_title("step"), metric_title(signal), study.ranks, whole=True)
            yield Chart(name=signal, section="loss_curves", title=title, caption=caption, spec=spec)


def signal_by_step(study: StudyData, summary: StudySummary, signal: Signal) -> tuple[Series, ...]:
    """Take the finite values of every rank's trial in the loss curves."""
    found = []
    for trial in shown_trials(study, summary):
        steps = study.steps[trial.trial_id]
        known = steps.where(np.isfinite(getattr(steps, signal)))
        if len(known):
            found.append(thinned(str(trial.rank), known.step.tolist(), getattr(known, signal).tolist()))
    return tuple(found)

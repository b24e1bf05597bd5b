"""Trackio; TRACKIO_DIR, TRACKIO_SPACE_ID and the like hold as usual. A run is resumed by its name."""

import os
from collections.abc import Sequence
from contextvars import copy_context
from pathlib import Path

import trackio
from trackio.run import Run

from lorascope.run.trackers.experiment import Row, RunState, StudyResult, TrackedRun

_PROJECT = "lorascope"


class TrackioTracker:
    """Follows ``ExperimentTracker``."""

    def __init__(self, folder: Path) -> None:  # noqa: ARG002 - Trackio has a place of its own
        self._runs: dict[str, Run] = {}

    def last_step(self, run: TrackedRun) -> int:
        """Return the step before the one that Trackio would give to the next row."""
        return int(self._run(run)._next_step) - 1

    def log(self, run: TrackedRun, rows: Sequence[Row]) -> None:
        """Hand the rows to Trackio's thread, which writes them."""
        for row in rows:
            self._run(run).log(dict(row.values), step=row.step)

    def result(self, run: TrackedRun, result: StudyResult) -> None:
        """Log verdict and table as text, and the charts as images."""
        charts = {f"charts/{name}": trackio.Image(str(path)) for name, path in result.charts.items()}
        text = trackio.Markdown(f"{result.headline}\n\n{result.ranks_markdown}")
        self._run(run).log({"verdict": text, **charts})

    def close(self, run: TrackedRun, state: RunState) -> None:  # noqa: ARG002 - Trackio has no states
        """Wait until all is written."""
        if run.run_id in self._runs:
            self._runs.pop(run.run_id).finish()

    def where(self) -> str:
        """Return the command that shows the project."""
        return f"trackio show --project {_project()}"

    def _run(self, run: TrackedRun) -> Run:
        """Return the run, which is made or resumed at its first use."""
        if run.run_id not in self._runs:
            # Trackio ends the current run of a context when another one begins there
            self._runs[run.run_id] = copy_context().run(
                trackio.init,
                _project(),
                name=f"{run.study}-{run.name}",
                group=run.study,
                config=dict(run.config),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        return self._runs[run.run_id]


def _project() -> str:
    return os.environ.get("TRACKIO_PROJECT", _PROJECT)

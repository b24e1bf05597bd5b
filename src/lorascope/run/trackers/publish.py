"""Bring a tracker up to date with a study's store, while the study runs or afterwards."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from lorascope.analysis import summarize
from lorascope.records import UNSUCCESSFUL, Environment, ResolvedStudy, TrialOutcome, TrialRecord
from lorascope.run.trackers.experiment import ExperimentTracker, Row, RunState, StudyResult, TrackedRun
from lorascope.run.trackers.rows import read_rows, state_of, tracked_runs
from lorascope.spec.load import load_spec
from lorascope.store.folder import StudyFolder
from lorascope.store.live import LiveStore
from lorascope.text.tables.advice import headline
from lorascope.text.tables.overview import overview_table


class Publisher:
    """Gives a tracker the rows of the store that it does not have; the store alone says what there is.

    Args:
        folder: of the study.
        tracker: where the rows go.
        guard: entered around each call of the tracker.
    """

    def __init__(
        self,
        folder: Path,
        tracker: ExperimentTracker,
        guard: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._folder = StudyFolder(folder)
        self._tracker = tracker
        self._guard = guard
        self._last: dict[str, int] = {}
        self._open: dict[str, TrackedRun] = {}
        self._closed: set[str] = set()
        self._outcomes: Mapping[str, TrialOutcome] = {}

    @property
    def has_logged(self) -> bool:
        """Return True once the tracker has something of the study."""
        return any(step >= 0 for step in self._last.values())

    def publish(self) -> None:
        """Add what is new, and close the runs of trials that ended; what cannot be read now is left for later."""
        try:
            runs, trials = self._runs()
        except sqlite3.OperationalError:
            return
        self._leave(runs)
        for name, run in runs.items():
            if run.run_id not in self._closed:
                self._publish(run, trials.get(name))

    def result(self) -> None:
        """Add the result, from the report that has been written, to the run of the whole study."""
        run = self._runs()[0][""]
        with self._guard():
            self._tracker.result(run, study_result(self._folder))

    def close(self) -> None:
        """Close all runs that are open: the study is complete, or its run ended."""
        for name, run in self._runs()[0].items():
            if run.run_id in self._open:
                outcome = self._outcomes.get(name)
                failed = outcome is not None and outcome.state in UNSUCCESSFUL
                complete = not name and all(state_of(one) for one in self._outcomes.values())
                self._close(run, "failed" if failed else "finished" if complete else "interrupted")

    def _runs(self) -> tuple[dict[str, TrackedRun], dict[str, TrialRecord]]:
        """Read which runs there are, and the trials by id; none before the study has begun."""
        if not self._folder.store.is_file():
            return {}, {}
        with LiveStore.open(self._folder.store) as store:
            resolved, environments = store.read_one(ResolvedStudy), store.read(Environment)
            trials, self._outcomes = store.read(TrialRecord), store.outcomes()
        if resolved is None or not environments:
            return {}, {}
        spec = load_spec(self._folder.spec, {})
        found = tracked_runs(self._folder.path, spec, resolved, environments[0], trials)
        return found, {trial.trial_id: trial for trial in trials}

    def _publish(self, run: TrackedRun, trial: TrialRecord | None) -> None:
        if run.run_id not in self._last:
            with self._guard():
                self._last[run.run_id] = self._tracker.last_step(run)
            self._open[run.run_id] = run
        state = state_of(self._outcomes.get(trial.trial_id)) if trial else None
        rows = self._rows(trial, self._last[run.run_id])
        if rows:
            with self._guard():
                self._tracker.log(run, rows)
            self._last[run.run_id] = rows[-1].step
        if state is not None:
            self._close(run, state)

    def _rows(self, trial: TrialRecord | None, after: int) -> Sequence[Row]:
        with LiveStore.open(self._folder.store) as store:
            return read_rows(store, trial, after)

    def _close(self, run: TrackedRun, state: RunState) -> None:
        with self._guard():
            self._tracker.close(run, state)
        self._closed.add(run.run_id)
        del self._open[run.run_id]

    def _leave(self, runs: Mapping[str, TrackedRun]) -> None:
        """Close the runs of a study that began anew with fewer steps."""
        there = {run.run_id for run in runs.values()}
        for run in [run for run in self._open.values() if run.run_id not in there]:
            self._close(run, "interrupted")


def study_result(folder: StudyFolder) -> StudyResult:
    """Read the result of a study whose report has been written."""
    summary = summarize(folder.path)
    charts = {path.stem: path for path in sorted(folder.charts.glob("*.png")) if "." not in path.stem}
    files = (folder.report("html"), folder.report("md"), folder.summary)
    return StudyResult(headline=headline(summary), ranks=overview_table(summary), charts=charts, files=files)

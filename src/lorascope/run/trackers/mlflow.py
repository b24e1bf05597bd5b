"""MLflow: MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME hold as usual; a run is found again by its tag."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run
from mlflow.utils.time import get_current_time_millis

from lorascope.run.trackers.experiment import Row, RunState, StudyResult, TrackedRun

_EXPERIMENT = "lorascope"
_TAG = "lorascope.run"
_BATCH = 1000
"""Most values that MLflow takes at once."""
_PARAMS = 100
_PARAM_LENGTH = 6000
_STATES = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


class MlflowTracker:
    """Follows ``ExperimentTracker``; trials are children of the study's run."""

    def __init__(self, folder: Path) -> None:  # noqa: ARG002 - MLflow has a place of its own
        self._client = MlflowClient()
        self._experiment = self._find_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT))

    def last_step(self, run: TrackedRun) -> int:
        """Return the last step of the values that every row has."""
        found = self._find(run.run_id)
        history = self._client.get_metric_history(found.info.run_id, run.axis) if found else []
        return max((metric.step for metric in history), default=-1)

    def log(self, run: TrackedRun, rows: Sequence[Row]) -> None:
        """Log rows in batches; a row is in one batch, which the server takes whole or not at all."""
        run_id, now = self._running(run).info.run_id, get_current_time_millis()
        batch: list[Metric] = []
        for row in rows:
            if len(batch) + len(row.values) > _BATCH:
                self._client.log_batch(run_id, metrics=batch)
                batch = []
            batch += [Metric(name, value, now, row.step) for name, value in row.values.items()]
        self._client.log_batch(run_id, metrics=batch)

    def result(self, run: TrackedRun, result: StudyResult) -> None:
        """Describe the run by the verdict and the table, and attach charts and report."""
        run_id = self._running(run).info.run_id
        self._client.set_tag(run_id, "verdict", result.headline)
        self._client.set_tag(run_id, "mlflow.note.content", f"{result.headline}\n\n{result.ranks_markdown}")
        for path in result.charts.values():
            self._client.log_artifact(run_id, str(path), "charts")
        for path in result.files:
            self._client.log_artifact(run_id, str(path))

    def close(self, run: TrackedRun, state: RunState) -> None:
        """Set the run's status."""
        found = self._find(run.run_id)
        if found is not None and found.info.status == "RUNNING":
            self._client.set_terminated(found.info.run_id, _STATES[state])

    def where(self) -> str:
        """Return the address of the server, or the command that shows a local one's files."""
        uri: str = self._client.tracking_uri
        return uri if uri.startswith("http") else f"mlflow ui --backend-store-uri {uri}"

    def _running(self, run: TrackedRun) -> Run:
        """Return the run with its settings, which is made, or set running again, where it is not."""
        found = self._find(run.run_id) or self._make(run)
        if found.info.status != "RUNNING":
            self._client.update_run(found.info.run_id, status="RUNNING")
        params = [Param(key, str(value)[:_PARAM_LENGTH]) for key, value in run.config.items()]
        for first in range(0, len(params) if not found.data.params else 0, _PARAMS):
            self._client.log_batch(found.info.run_id, params=params[first : first + _PARAMS])
        return found

    def _make(self, run: TrackedRun) -> Run:
        """Make a run, and that of the study before one of its trials."""
        tags = {"lorascope.study": run.study}
        whole = self._find(run.study_run_id) or self._create(run.study_run_id, run.study, tags)
        if not run.is_trial:
            return whole
        return self._create(run.run_id, run.name, {**tags, "mlflow.parentRunId": whole.info.run_id})

    def _create(self, run_id: str, name: str, tags: Mapping[str, str]) -> Run:
        made: Run = self._client.create_run(self._experiment, run_name=name, tags={_TAG: run_id, **tags})
        return made

    def _find(self, run_id: str) -> Run | None:
        found = self._client.search_runs([self._experiment], filter_string=f"tags.`{_TAG}` = '{run_id}'", max_results=1)
        return next(iter(found), None)

    def _find_experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        made: str = found.experiment_id if found is not None else self._client.create_experiment(name)
        return made

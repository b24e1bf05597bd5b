"""A tracker hears everything of a run."""

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from lorascope.errors import Interrupted
from lorascope.records import ActivityRecord, ProgressRecord
from lorascope.run.study import run_study
from lorascope.run.trackers import Tracker
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from support.studies import Watcher, study_of


class Notebook:
    """Implements the Tracker protocol as a line for each event."""

    def __init__(self) -> None:
        self.lines = list[str]()

    def __getattr__(self, event: str) -> Callable[..., None]:
        return lambda *values: self.lines.append(" ".join([event, *self._words(event, values)]))

    def _words(self, event: str, values: tuple[Any, ...]) -> list[str]:
        match event, values:
            case "begin", (resolved, trials, done):
                words = [resolved.total_steps, *(trial.trial_id for trial in trials), len(done)]
            case "solo_cost", (cost,):
                words = [cost.rank]
            case "step", (records,):
                words = [record.step for record in records]
            case "evaluation", (record,):
                words = [record.trial_id, record.step]
            case "outcome", (outcome,):
                words = [outcome.trial_id, outcome.state]
            case _:
                words = list(values[:1])
        return [str(word) for word in words]


@pytest.fixture
def spec(model_folders: Mapping[str, str], rows_file: str) -> StudySpec:
    return study_of(
        model_folders["llama"],
        rows_file,
        max_steps=2,
        eval_steps=2,
        cost="quick",
        kernels=False,
        truncation=False,
        share_prefixes="always",
    )


def test_tracker_receives_every_event_of_a_run(spec: StudySpec, tmp_path: Path) -> None:
    folder, watcher, notebook = tmp_path / "study", Watcher(), Notebook()
    run_study(spec, folder, trackers=[watcher, cast("Tracker", notebook)], command="lorascope run")
    lines = notebook.lines
    phases = [f"phase {text}" for text in watcher.phases]
    assert [line for line in lines if line.startswith("phase")] == phases
    assert [line for line in lines if line.startswith("progress")] == [
        f"progress {share_done}" for share_done, _ in watcher.progresses
    ]
    assert watcher.progresses
    assert all(0 < share_done < 1 for share_done, _ in watcher.progresses)
    assert [line for line in lines if not line.startswith(("phase", "progress"))] == [
        *(f"note {text}" for text in watcher.notes),
        "begin 2 r2 r4 0", "solo_cost 4", "solo_cost 2", "outcome r2 running", "outcome r4 running",
        "evaluation r2 0", "evaluation r4 0", "step 1 1", "step 2 2", "evaluation r2 2", "evaluation r4 2",
        "outcome r2 finished", "outcome r4 finished", "end",
    ]  # fmt: skip
    assert watcher.notes
    with StudyStore.open(folder / "study.db") as store:
        progress, activities = store.read_one(ProgressRecord), {one.name: one for one in store.read(ActivityRecord)}
    assert progress is not None
    assert (progress.share_done, progress.seconds_left) == watcher.progresses[-1]
    left = {name for name, one in activities.items() if one.seconds_left}
    assert left == {"report"}
    spent = {"preparation", "predictions", "solo_runs", "training", "evaluation", "spectra", "proof"}
    assert {name for name, one in activities.items() if one.spent_seconds} == spent


def test_tracker_is_closed_when_a_run_is_stopped(spec: StudySpec, tmp_path: Path) -> None:
    stopping, notebook = Watcher(at_step=lambda step: os.kill(os.getpid(), signal.SIGINT)), Notebook()
    with pytest.raises(Interrupted):
        run_study(spec, tmp_path / "study", trackers=[stopping, cast("Tracker", notebook)], command="lorascope run")
    assert notebook.lines[-1] == "end"

"""One file and one line add a tracker, and it hears everything of a run."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from lorascope.errors import InputError, Interrupted
from lorascope.records import ActivityRecord, ProgressRecord
from lorascope.run.study import run_study
from lorascope.run.trackers import TRACKERS, make_tracker
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from support.studies import Watcher, study_of

NOTEBOOK = '''
"""A tracker that writes a line for each event."""


class Notebook:
    def __init__(self, folder):
        self._file = folder.with_suffix(".notebook")

    def _write(self, *words):
        with self._file.open("a", encoding="utf-8") as file:
            print(*words, file=file)

    def phase(self, text):
        self._write("phase", text)

    def progress(self, share_done, seconds_left):
        self._write("progress", share_done)

    def note(self, text):
        self._write("note", text)

    def warning(self, text):
        self._write("warning", text)

    def begin(self, resolved, trials, done):
        self._write("begin", resolved.total_steps, *(trial.trial_id for trial in trials), len(done))

    def solo_cost(self, cost):
        self._write("solo_cost", cost.rank)

    def step(self, records):
        self._write("step", *(record.step for record in records))

    def evaluation(self, record):
        self._write("evaluation", record.trial_id, record.step)

    def outcome(self, outcome):
        self._write("outcome", outcome.trial_id, outcome.state)

    def end(self):
        self._write("end")
'''


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


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notebook.py").write_text(NOTEBOOK, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(TRACKERS, "notebook", "notebook:Notebook")


@pytest.mark.usefixtures("registered")
def test_tracker_receives_every_event_of_a_run(spec: StudySpec, tmp_path: Path) -> None:
    folder, watcher = tmp_path / "study", Watcher()
    run_study(spec, folder, trackers=[watcher, make_tracker("notebook", folder)], command="lorascope run")
    lines = (tmp_path / "study.notebook").read_text(encoding="utf-8").splitlines()
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


@pytest.mark.usefixtures("registered")
def test_tracker_is_closed_when_a_run_is_stopped(spec: StudySpec, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    stopping = Watcher(at_step=lambda step: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted):
        run_study(spec, folder, trackers=[stopping, make_tracker("notebook", folder)], command="lorascope run")
    assert (tmp_path / "study.notebook").read_text(encoding="utf-8").splitlines()[-1] == "end"


def test_tracker_that_is_not_registered_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no tracker 'wandb'"):
        make_tracker("wandb", tmp_path)

"""One study on every executor: the same groups, the same bytes, whatever happens to the workers."""

import multiprocessing
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from lorascope.errors import Interrupted
from lorascope.records import TrialRecord
from lorascope.run import round as round_module
from lorascope.run.executors import EXECUTORS
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from support.studies import Left, execute, read_study, study_of

OTHERS = sorted(set(EXECUTORS) - {"inline"})


@pytest.fixture(scope="module")
def spec(model_folders: Mapping[str, str], rows_file: str) -> StudySpec:
    """Two groups, in which a learning rate stops early, and then a round of the second seed."""
    return study_of(
        model_folders["llama"], rows_file, max_steps=8, eval_steps=4, learning_rates=(1e-4, 1e-3, 1e-2), seeds=(0, 1),
        max_grid_extensions=0, workers=2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def inline(spec: StudySpec, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Left]:
    folder = tmp_path_factory.mktemp("executors") / "inline"
    execute(spec, folder)
    return folder, read_study(folder)


def on(executor: str, spec: StudySpec) -> StudySpec:
    return spec.model_copy(update={"executor": executor})


def order_of_trials(folder: Path) -> list[str]:
    with StudyStore.open(folder / "study.db") as store:
        return [trial.trial_id for trial in store.read(TrialRecord)]


@pytest.mark.parametrize("executor", OTHERS)
def test_study_is_the_same_on_every_executor(
    executor: str, spec: StudySpec, inline: tuple[Path, Left], tmp_path: Path
) -> None:
    folder, expected = inline
    watcher = execute(on(executor, spec), tmp_path / executor)
    assert read_study(tmp_path / executor) == expected
    assert order_of_trials(tmp_path / executor) == order_of_trials(folder)
    assert {outcome.state for outcome in watcher.outcomes} == {"running", "finished", "stopped"}


def test_killed_worker_is_replaced_and_nothing_changes(
    spec: StudySpec, inline: tuple[Path, Left], tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill(step: int) -> None:
        if step == 3 and not killed:
            worker = multiprocessing.active_children()[0]
            killed.append(worker.pid)
            os.kill(worker.pid, signal.SIGKILL)

    watcher = execute(on("process", spec), tmp_path / "study", at_step=kill)
    assert len(killed) == 1
    assert any("ended (signal 9); its trials go on" in note for note in watcher.notes)
    assert read_study(tmp_path / "study") == inline[1]


def test_trials_fail_whose_worker_dies_every_time(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(step: int) -> None:
        for worker in multiprocessing.active_children():
            os.kill(worker.pid, signal.SIGKILL)

    monkeypatch.setattr(round_module, "_MOST_LOST", 1)
    alone = spec.model_copy(update={"executor": "process", "workers": 1, "learning_rates": (5e-3,), "seeds": (0,)})
    watcher = execute(alone, tmp_path / "study", at_step=kill)
    assert sum("go on from their last checkpoint" in note for note in watcher.notes) == 1
    left = read_study(tmp_path / "study")
    assert {outcome.state for outcome in left.outcomes.values()} == {"failed"}
    assert {outcome.message.code for outcome in left.outcomes.values()} == {"trial.workers_lost"}


@pytest.mark.parametrize("executor", OTHERS)
def test_stopped_study_goes_on_under_another_executor(
    executor: str, spec: StudySpec, inline: tuple[Path, Left], tmp_path: Path
) -> None:
    def stop(step: int) -> None:
        if step == 5 and not stopped:
            stopped.append(step)
            os.kill(os.getpid(), signal.SIGINT)

    stopped: list[int] = []
    with pytest.raises(Interrupted):
        execute(on(executor, spec), tmp_path / "study", at_step=stop)
    assert multiprocessing.active_children() == []
    execute(spec.model_copy(update={"executor": "inline", "workers": None}), tmp_path / "study")
    assert read_study(tmp_path / "study") == inline[1]

"""Real trackers follow one small study that is killed and continued; what they wrote is read back."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lorascope.errors import InputError
from lorascope.records import EvalRecord, GpuSample, ResolvedStudy, StepRecord, SystemSample
from lorascope.report import write_report
from lorascope.run.study import run_study
from lorascope.run.trackers import followers
from lorascope.run.trackers.experiment import TRACKERS, RegisteredTracker, check_trackers
from lorascope.run.trackers.export import export_runs
from lorascope.run.trackers.followers import follow_run
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from support.studies import Watcher, checkpoint_every_step, study_of
from support.tracked import READERS, Tracked

Lorascope = Callable[..., tuple[int, str, str]]
NAMES = [name for name in TRACKERS if find_spec(TRACKERS[name].library)]
STEPS, KILLED_AFTER = 12, 9
TRIALS = ("r2", "r4")
WAIT_SECONDS = 120.0
TRAINING = {"train/loss", "train/learning_rate", "train/grad_norm", "train/global_step"}
ALONE = {"alone/step_seconds", "alone/runtime_seconds", "alone/tokens_per_second"}

pytestmark = pytest.mark.skipif(not NAMES, reason="no tracker is installed: make test installs them")
each_tracker = pytest.mark.parametrize("name", NAMES)


class Killed(BaseException):
    """Ends a run as a kill does: nothing is saved any more."""


@dataclass(frozen=True)
class Study:
    """The finished study, and the folder that holds what the trackers keep in places of their own."""

    folder: Path
    home: Path
    spec: StudySpec
    notes: tuple[str, ...]

    def runs(self, name: str) -> Mapping[str, Tracked]:
        return READERS[name](self.home, self.folder)


def variables(home: Path) -> dict[str, str]:
    """What keeps the trackers' files in a folder, and W&B offline."""
    return {
        "WANDB_MODE": "offline", "WANDB_DIR": str(home), "WANDB_CACHE_DIR": str(home / "cache"),
        "WANDB_CONFIG_DIR": str(home / "config"), "WANDB_DATA_DIR": str(home / "data"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}", "TRACKIO_DIR": str(home / "trackio"),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working folder of the trackers of the shared study, where MLflow puts its files."""
    home = tmp_path_factory.mktemp("trackers")
    with pytest.MonkeyPatch.context() as patch:
        for key, value in variables(home).items():
            patch.setenv(key, value)
        patch.chdir(home)
        yield home


@pytest.fixture(scope="module")
def study(model_folders: Mapping[str, str], rows_file: str, home: Path) -> Study:
    """Kill the run and its trackers behind step 9, whose rows the trackers have in part, and continue it."""
    spec = study_of(
        model_folders["llama"], rows_file, max_steps=STEPS, eval_steps=4, cost="quick", kernels=False, truncation=False
    )
    folder, notes, processes = home / "study", list[str](), list[subprocess.Popen[str]]()

    def start(*args: Any, **kwargs: Any) -> subprocess.Popen[str]:
        processes.append(subprocess.Popen(*args, **kwargs))
        return processes[-1]

    def at_step(step: int) -> None:
        if step == KILLED_AFTER:
            # W&B writes late, so that all it has been given is lost
            wait_until(lambda: all(has_steps(name, home, folder) for name in NAMES if name != "wandb"))
            for process in processes:
                process.kill()
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        checkpoint_every_step(patch)
        patch.setattr(followers, "Popen", start)
        with pytest.raises(Killed), follow_run(NAMES, folder, notes.append, notes.append) as first:
            run_study(spec, folder, trackers=[Watcher(at_step=at_step), first.tracker], command="lorascope run")
        watcher = Watcher()
        with follow_run(NAMES, folder, notes.append, notes.append) as second:
            run_study(spec, folder, trackers=[watcher, second.tracker], command="lorascope run")
            write_report(folder)
            second.result()
    for process in processes:  # a busy machine may take more than the five seconds that a run waits
        process.wait(WAIT_SECONDS)
    assert watcher.begun == [KILLED_AFTER - 1]
    return Study(folder=folder, home=home, spec=spec, notes=tuple(notes))


def wait_until(happens: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not happens():
        assert time.monotonic() < end, "the trackers did not get there"
        time.sleep(0.2)


def has_steps(name: str, home: Path, folder: Path) -> bool:
    try:
        runs = READERS[name](home, folder)
    except sqlite3.OperationalError:  # its tables are being made
        return False
    return all(trial in runs and max(runs[trial].rows, default=0) >= KILLED_AFTER - 2 for trial in TRIALS)


@each_tracker
def test_every_step_of_a_killed_and_continued_run_is_there_once(study: Study, name: str) -> None:
    runs = study.runs(name)
    assert set(runs) == {"study", *TRIALS}
    for trial in TRIALS:
        assert sorted(runs[trial].rows) == list(range(STEPS + 1))
        assert len(runs[trial].logged) == len(set(runs[trial].logged))


@each_tracker
def test_rows_are_those_of_the_store(study: Study, name: str) -> None:
    runs = study.runs(name)
    with StudyStore.open(study.folder / "study.db") as store:
        samples = store.read(SystemSample)
        for trial in TRIALS:
            rows = runs[trial].rows
            for step in store.read(StepRecord, trial_id=trial):
                assert rows[step.step]["train/loss"] == pytest.approx(step.nats / step.target_tokens)
                assert rows[step.step]["train/learning_rate"] == pytest.approx(step.learning_rate)
                assert rows[step.step].keys() >= TRAINING
            evaluations = {one.step: one.loss for one in store.read(EvalRecord, trial_id=trial)}
            assert evaluations.keys() == {0, 4, 8, 12}
            assert {step: row["eval/loss"] for step, row in rows.items() if "eval/loss" in row} == pytest.approx(
                evaluations
            )
            assert rows[STEPS].keys() >= ALONE | {"alone/process_memory_gb"}
            assert not any(rows[step].keys() & ALONE for step in range(STEPS))
    rows = runs["study"].rows
    assert [rows[number]["system/process_memory_gb"] for number in sorted(rows)] == pytest.approx(
        [sample.rss_bytes / 1e9 for sample in samples]
    )


@each_tracker
def test_runs_have_the_settings_and_one_group(study: Study, name: str) -> None:
    runs = study.runs(name)
    assert len({run.group for run in runs.values()}) == 1
    assert {trial: str(runs[trial].config["rank"]) for trial in TRIALS} == {"r2": "2", "r4": "4"}
    assert {str(run.config["max_steps"]) for run in runs.values()} == {str(STEPS)}


@each_tracker
def test_study_run_shows_verdict_ranks_and_charts(study: Study, name: str) -> None:
    run = study.runs(name)["study"]
    assert "too few for a verdict" in run.verdict
    assert {"charts/train_loss", "charts/memory_over_time"} <= run.result
    assert {"wandb": "ranks", "mlflow": "report.html", "tensorboard": "ranks", "trackio": "verdict"}[name] in run.result


def test_each_tracker_says_where_its_runs_are(study: Study) -> None:
    said = {
        "wandb": f"wandb sync {study.home}/wandb/offline-run-*",
        "mlflow": f"mlflow ui --backend-store-uri sqlite:///{study.home}/mlflow.db",
        "tensorboard": f"tensorboard --logdir {study.folder}/tensorboard",
        "trackio": "trackio show --project lorascope",
    }
    assert {f"{name}: {said[name]}" for name in NAMES} <= set(study.notes)
    assert [note for note in study.notes if "without it" in note] == []


def export(home: Path, *arguments: str) -> str:
    """Run Python in a process of its own, as a library may change the one it is in; return standard output."""
    command, environment = [sys.executable, *arguments], os.environ | variables(home)
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


EXPORT_RUNS = """
import sys
from pathlib import Path
from lorascope.run.trackers.export import export_runs
for name in sys.argv[2:]:
    export_runs(Path(sys.argv[1]), name)
"""


@pytest.fixture(scope="module")
def exported(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study, exported to trackers that know nothing of it, and then once more."""
    home = tmp_path_factory.mktemp("exported")
    shutil.copytree(study.folder, home / "study", ignore=shutil.ignore_patterns("tensorboard"))
    lines = export(home, "-m", "lorascope", "export", str(home / "study"), "--to-tracker", ",".join(NAMES)).splitlines()
    assert [line.partition(":")[0] for line in lines] == NAMES
    export(home, "-c", EXPORT_RUNS, str(home / "study"), *NAMES)
    return replace(study, folder=home / "study", home=home)


@each_tracker
def test_export_gives_what_the_live_run_gave_and_nothing_twice(study: Study, exported: Study, name: str) -> None:
    live, later = study.runs(name), exported.runs(name)
    assert {key: run.rows for key, run in later.items()} == {key: run.rows for key, run in live.items()}
    for run in later.values():
        assert len(run.logged) == len(set(run.logged))
    assert later["study"].result == live["study"].result


@pytest.mark.skipif("wandb" not in NAMES, reason="wandb is missing: make test installs it")
def test_charts_of_a_gpu_are_in_one_group_of_wandb(study: Study, tmp_path: Path) -> None:
    """Loss by step, GPU memory allocated, time accessing memory, process memory and runtime of a study made a GPU's."""
    folder = tmp_path / "study"
    shutil.copytree(study.folder, folder, ignore=shutil.ignore_patterns("tensorboard"))
    gpu = GpuSample(
        seconds=0.0, rank=None, uuid="GPU-1", name="A GPU", memory_used_bytes=3 * 10**9, memory_total_bytes=8 * 10**9,
        utilization_percent=80, memory_utilization_percent=40, power_watts=200.0, sm_clock_mhz=None,
        memory_clock_mhz=None, temperature_celsius=60, throttle_reasons=None,
    )  # fmt: skip
    with StudyStore.create(folder / "study.db") as store:
        resolved = store.read_one(ResolvedStudy)
        assert resolved is not None
        last = store.read(SystemSample)[-1]
        later = replace(last, seconds=last.seconds + 1, device_allocated_bytes=2 * 10**9)
        store.put_all([replace(resolved, device="cuda"), later, replace(gpu, seconds=later.seconds)])
        store.put_all(replace(gpu, rank=rank, memory_utilization_percent=10 * rank) for rank in (2, 4))
    home = tmp_path / "home"
    home.mkdir()
    export(home, "-c", EXPORT_RUNS, str(folder), "wandb")
    runs = READERS["wandb"](home, folder)
    assert len({run.group for run in runs.values()}) == 1
    for trial, access in (("r2", 20), ("r4", 40)):
        row = runs[trial].rows[STEPS]
        assert row["alone/gpu_memory_access_percent"] == access
        assert row.keys() >= ALONE | {"alone/gpu_memory_allocated_gb", "train/loss", "eval/loss"}
        assert "alone/process_memory_gb" not in row
    row = runs["study"].rows[max(runs["study"].rows)]
    assert row["system/gpu_memory_allocated_gb"] == 2.0
    assert row["system/gpu_memory_access_percent"] == 40
    assert row["system/process_memory_gb"] == later.rss_bytes / 1e9


@pytest.mark.skipif("mlflow" not in NAMES, reason="mlflow is missing: make test installs it")
def test_trials_of_mlflow_have_their_study_before_it_has_rows(study: Study, tmp_path: Path) -> None:
    """Samples are stored every ten seconds, and a trial's steps at once."""
    folder = tmp_path / "study"
    shutil.copytree(study.folder, folder, ignore=shutil.ignore_patterns("tensorboard"))
    with closing(sqlite3.connect(folder / "study.db")) as base, base:
        base.execute("DELETE FROM samples")
    export(tmp_path, "-c", EXPORT_RUNS, str(folder), "mlflow")
    runs = READERS["mlflow"](tmp_path, folder)
    assert set(runs) == {"study", *TRIALS}
    assert "report.html" in runs["study"].result
    assert {run.config["max_steps"] for run in runs.values()} == {str(STEPS)}


NOTEBOOK = """
class Notebook:
    def __init__(self, folder): self.file = folder.with_suffix(".notebook")
    def last_step(self, run): return -1
    def log(self, run, rows): self.write(run.name, *(row.step for row in rows))
    def result(self, run, result): self.write(run.name, "result", *result.ranks.header[:2])
    def close(self, run, state): self.write(run.name, state)
    def where(self): return str(self.file)
    def write(self, *words):
        with self.file.open("a") as file: print(*words, file=file)
"""
BROKEN = """
class Broken:
    def __init__(self, folder): pass
    def last_step(self, run): return -1
    def close(self, run, state): pass
    def log(self, run, rows): raise OSError("no route to the server, token=abc123def")
"""
HANGING = """
import time

class Hanging:
    def __init__(self, folder): pass
    def last_step(self, run): time.sleep(8); raise OSError("gave up")
"""


@pytest.fixture
def register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Register a tracker of this test's, given by its name and its module's text."""

    def add(name: str, text: str) -> None:
        (tmp_path / f"{name}_tracker.py").write_text(text)
        path = f"{name}_tracker:{name.title()}"
        monkeypatch.setitem(TRACKERS, name, RegisteredTracker(path, "json"))
        source = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
        monkeypatch.setenv("PYTHONPATH", source)

    return add


def test_experiment_tracker_is_added_by_one_file_and_one_line(
    study: Study, tmp_path: Path, register: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    register("notebook", NOTEBOOK)
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(study.folder, tmp_path / "study", ignore=shutil.ignore_patterns("tensorboard"))
    assert export_runs(tmp_path / "study", "notebook") == str(tmp_path / "study.notebook")
    steps = " ".join(map(str, range(STEPS + 1)))
    lines = (tmp_path / "study.notebook").read_text().splitlines()
    assert lines[0].startswith("study 0 1")
    assert lines[1:] == [
        f"r2 {steps}", "r2 finished", f"r4 {steps}", "r4 finished", "study result rank held-out loss", "study finished",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("broken", BROKEN, "broken: OSError: no route to the server, token=***; the study goes on without it"),
        ("hanging", HANGING, "hanging: it has not answered for 5 seconds, and the study does not wait for it"),
    ],
)
def test_tracker_that_fails_or_hangs_is_said_once_and_disturbs_nothing(
    model_folders: Mapping[str, str],
    rows_file: str,
    tmp_path: Path,
    register: Callable[[str, str], None],
    name: str,
    text: str,
    said: str,
) -> None:
    register(name, text)
    spec = study_of(model_folders["llama"], rows_file, max_steps=3, kernels=False)
    folder, watcher, notes = tmp_path / "study", Watcher(), list[str]()
    with follow_run([name], folder, notes.append, lambda phase: None) as trackers:
        run_study(spec, folder, trackers=[watcher, trackers.tracker], command="lorascope run")
    assert watcher.steps == [1, 2, 3]
    assert [note for note in notes if said in note] == notes
    assert len(notes) == 1
    assert f"lorascope export {folder} --to-tracker {name}" in notes[0]


def test_unknown_and_missing_trackers_are_refused_before_training(
    lorascope: Lorascope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, errors = lorascope("run", "--report-to", "wandbb")
    assert (code, "there is no tracker 'wandbb'" in errors, "choose from: wandb, mlflow" in errors) == (2, True, True)
    monkeypatch.setitem(TRACKERS, "trackio", RegisteredTracker("none:None", "trackio_that_nobody_has"))
    code, _, errors = lorascope("run", "--report-to", "trackio")
    assert (code, "pip install 'lorascope[trackio]'" in errors) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_folder_named_like_a_library_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tracker_of_files").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(TRACKERS, "files", RegisteredTracker("none:None", "tracker_of_files"))
    with pytest.raises(InputError, match="not installed"):
        check_trackers(["files"])


def test_export_wants_a_rank_and_a_folder_or_a_tracker(lorascope: Lorascope, tmp_path: Path) -> None:
    code, _, errors = lorascope("export", tmp_path, "--rank", "2")
    assert (code, "--to-tracker" in errors) == (2, True)
    code, _, errors = lorascope("export", tmp_path, "--rank", "2", "--to-tracker", "wandb")
    assert (code, "leave out --rank and --to" in errors) == (2, True)

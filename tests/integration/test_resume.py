"""Stopped anywhere and run again, a study ends with the bytes it would have had."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Self

import pytest
from transformers import AutoTokenizer

from lorascope.data import prepare as data_prepare
from lorascope.engine import loop
from lorascope.engine.trial import TrainingTrial
from lorascope.errors import InputError, Interrupted
from lorascope.message import Message
from lorascope.records import ResolvedStudy, ShownRow, StepRecord
from lorascope.spec.load import dump_spec, load_spec
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from support.studies import Left, checkpoint_every_step, execute, read_study, save_model_folder, study_of

Lorascope = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def spec(model_folders: Mapping[str, str], rows_file: str) -> StudySpec:
    return study_of(model_folders["llama"], rows_file, warmup_steps=2, num_train_epochs=3.0)


@pytest.fixture(scope="session")
def undisturbed(spec: StudySpec, tmp_path_factory: pytest.TempPathFactory) -> Left:
    folder = tmp_path_factory.mktemp("undisturbed") / "study"
    execute(spec, folder)
    return read_study(folder)


def stop_after(step: int) -> Callable[[int], None]:
    def at_step(done: int) -> None:
        if done == step:
            os.kill(os.getpid(), signal.SIGINT)

    return at_step


def test_resume_after_a_stop_gives_the_same_bytes(spec: StudySpec, undisturbed: Left, tmp_path: Path) -> None:
    """Once more after each of several steps, the one before the last evaluation included."""
    for step in (1, 3, 6):
        with pytest.raises(Interrupted):
            execute(spec, tmp_path / "study", stop_after(step))
    watcher = execute(spec, tmp_path / "study")
    assert watcher.begun == [6]
    assert watcher.steps == []
    assert read_study(tmp_path / "study") == undisturbed
    assert not (tmp_path / "study" / "checkpoints").exists()


def test_date_of_the_chat_template_stays_that_of_the_first_run(
    tmp_path: Path, rows: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a run that continues on another day, and in another folder's study made from this one's file."""

    class Day(date):
        on = "2026-11-30"

        @classmethod
        def today(cls) -> Self:
            return cls.fromisoformat(cls.on)

    monkeypatch.setattr(data_prepare, "date", Day)
    save_model_folder(tmp_path / "model", "llama")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}\n" + tokenizer.chat_template
    tokenizer.save_pretrained(tmp_path / "model")
    talks = [
        [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
        for row in rows
    ]
    (tmp_path / "rows.json").write_text(json.dumps([{"messages": talk} for talk in talks]))
    spec = study_of(str(tmp_path / "model"), str(tmp_path / "rows.json"), truncation=False, ranks=(2,), max_steps=2)
    with pytest.raises(Interrupted):
        execute(spec, tmp_path / "study", stop_after(1))
    Day.on = "2026-12-24"
    execute(spec, tmp_path / "study")
    execute(spec, tmp_path / "study")  # a complete one too
    there = load_spec(tmp_path / "study" / "study.yaml", {})
    assert there == spec.model_copy(update={"template_date": date(2026, 11, 30)})
    execute(there, tmp_path / "again")
    hashes = []
    for folder in ("study", "again"):
        with StudyStore.open(tmp_path / folder / "study.db") as store:
            assert store.read(ShownRow)[0].pieces[0].startswith("30 Nov 2026\n")
            resolved = store.read_one(ResolvedStudy)
            assert resolved is not None
            assert Message("rows.dated", date="2026-11-30") in resolved.data_notes
            hashes.append(resolved.data_hash)
    assert hashes[0] == hashes[1]
    with pytest.raises(InputError, match=r"holds a different study .*template_date"):
        execute(spec.model_copy(update={"template_date": date(2026, 12, 24)}), tmp_path / "study")


def test_resume_after_a_stop_in_the_last_evaluation(spec: StudySpec, tmp_path: Path) -> None:
    """All its steps are done, but not its evaluation, and its adapters are not written."""

    def stop(*args: Any, **kwargs: Any) -> None:
        raise Interrupted("stopped as asked")

    with pytest.raises(Interrupted):
        execute(spec, tmp_path / "study", stop_after(6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "evaluate", stop)
        with pytest.raises(Interrupted):
            execute(spec, tmp_path / "study")
    left = read_study(tmp_path / "study")
    assert {outcome.state for outcome in left.outcomes.values()} == {"running"}
    assert left.adapters == {}
    execute(spec, tmp_path / "study")
    assert {outcome.state for outcome in read_study(tmp_path / "study").outcomes.values()} == {"finished"}


@pytest.mark.parametrize("checkpoints", ["every step", "none"])
def test_resume_after_a_kill_gives_the_same_bytes(
    spec: StudySpec, undisturbed: Left, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: str
) -> None:
    """What was recorded behind the last checkpoint is trained again, to the same numbers."""

    class Killed(BaseException):
        pass

    def at_step(done: int) -> None:
        if done == 5:
            raise Killed

    if checkpoints == "every step":
        checkpoint_every_step(monkeypatch)
    with pytest.raises(Killed):
        execute(spec, tmp_path / "study", at_step)
    watcher = execute(spec, tmp_path / "study")
    assert watcher.begun == [4 if checkpoints == "every step" else 0]
    assert read_study(tmp_path / "study") == undisturbed


def test_second_signal_stops_at_once_and_saves_nothing(
    spec: StudySpec, undisturbed: Left, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It strikes between the updates of two trials: a checkpoint of that moment would be of two different steps."""
    updates = []
    original = TrainingTrial.update

    def update(self: TrainingTrial, **arguments: float) -> float:
        norm = original(self, **arguments)
        updates.append(self.record.trial_id)
        if len(updates) == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return norm

    with monkeypatch.context() as patch:
        patch.setattr(TrainingTrial, "update", update)
        with pytest.raises(KeyboardInterrupt):
            execute(spec, tmp_path / "study")
    assert updates[-1] == "r2"
    assert not list((tmp_path / "study").rglob("*.safetensors"))
    execute(spec, tmp_path / "study")
    assert read_study(tmp_path / "study") == undisturbed


def test_signal_handlers_are_restored(spec: StudySpec, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted):
        execute(spec, tmp_path / "study", stop_after(1))
    assert signal.getsignal(signal.SIGINT) is before


def test_resume_of_a_finished_study_trains_nothing(
    lorascope: Lorascope, spec: StudySpec, undisturbed: Left, tmp_path: Path
) -> None:
    execute(spec, tmp_path / "study")
    (tmp_path / "my.yaml").write_text(dump_spec(spec), encoding="utf-8")
    code, out, err = lorascope("run", tmp_path / "my.yaml", "--out", tmp_path / "study")
    assert (code, err) == (0, "")
    assert "nothing was trained" in out
    assert "loading the model" not in out
    assert "Adapter  " in out
    assert read_study(tmp_path / "study") == undisturbed


def test_resume_keeps_the_curve_of_a_diverged_trial(
    model_folders: Mapping[str, str], rows_file: str, tmp_path: Path
) -> None:
    spec = study_of(
        model_folders["llama"], rows_file, ranks=(2,), learning_rates=(1e30, 1e-3), max_steps=5, max_grid_extensions=0
    )
    execute(spec, tmp_path / "one")
    with pytest.raises(Interrupted):
        execute(spec, tmp_path / "two", stop_after(4))
    assert execute(spec, tmp_path / "two").begun == [4]
    left = read_study(tmp_path / "one")
    assert left.outcomes["r2-lr1e+30"].state == "diverged"
    assert left.outcomes["r2-lr0.001"].state == "finished"
    again = read_study(tmp_path / "two")
    assert repr(again) == repr(left)  # NaN equals itself in writing only


def recorded_steps(folder: Path) -> int:
    with StudyStore.open(folder / "study.db") as store:
        return len(store.read(StepRecord, trial_id="r2"))


def test_ctrl_c_is_exit_code_130_and_resumable(
    model_folders: Mapping[str, str], rows_file: str, tmp_path: Path, lorascope: Lorascope
) -> None:
    """A real program and a real signal: 130, then the same command goes on where it was."""
    spec = study_of(model_folders["llama"], rows_file, max_steps=100_000, eval_steps=100_000, ranks=(2,))
    (tmp_path / "my.yaml").write_text(dump_spec(spec), encoding="utf-8")
    arguments = ["run", str(tmp_path / "my.yaml"), "--out", str(tmp_path / "study")]
    program = subprocess.Popen(
        [sys.executable, "-m", "lorascope", *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    with program:
        assert program.stdout is not None
        for line in program.stdout:
            if line.startswith("step=0/100000 rank=base "):
                break
        while not recorded_steps(tmp_path / "study"):
            time.sleep(0.05)
        program.send_signal(signal.SIGINT)
        out, err = program.communicate()
    assert program.returncode == 130, out + err
    assert err == ""
    assert f"To continue lorascope run {tmp_path / 'study'}\n" in out
    left = read_study(tmp_path / "study")
    done = len(left.steps["r2"])
    assert 0 < done < 100_000
    steps: list[int] = []

    def interrupt(step: int) -> None:
        steps.append(step)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        execute(spec, tmp_path / "study", interrupt)
    assert steps[0] == done + 1

"""A failing trial is an outcome with its numbers, and the next run tries again."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from lorascope.analysis import summarize
from lorascope.engine import loop
from lorascope.engine import step as engine_step
from lorascope.engine.forward import FrozenModel
from lorascope.engine.trial import TrainingTrial
from lorascope.errors import InputError, LorascopeError
from lorascope.message import Message
from lorascope.records import TrialOutcome
from lorascope.run import solo_run, study
from lorascope.run.export import export_adapter
from lorascope.spec.load import dump_spec
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from lorascope.text.say import say
from support.studies import checkpoint_every_step, execute, read_study, study_of

Lorascope = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def spec(model_folders: Mapping[str, str], rows_file: str) -> StudySpec:
    return study_of(model_folders["llama"], rows_file, max_steps=4)


@pytest.fixture
def arguments(spec: StudySpec, tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "my.yaml").write_text(dump_spec(spec), encoding="utf-8")
    return ("run", str(tmp_path / "my.yaml"), "--out", str(tmp_path / "study"))


def cpu_out_of_memory() -> RuntimeError:
    """The allocator's own words, from asking it for more than an address space has."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**17)
    return caught.value


ERRORS = {
    "failed": lambda: ZeroDivisionError("of all things"),
    "oom": lambda: MemoryError("no more"),
    "oom-gpu": lambda: torch.OutOfMemoryError("CUDA out of memory"),
    "oom-cpu": cpu_out_of_memory,
}


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], AbstractContextManager[object]]:
    """Inside the context, the third step of a group raises; checkpoints are saved after every step."""
    checkpoint_every_step(monkeypatch)

    @contextmanager
    def inside(error: Exception) -> Iterator[None]:
        def train_step(*args: Any, **kwargs: Any) -> object:
            if args[1][0].steps_done == 2:
                raise error
            return engine_step.train_step(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(loop, "train_step", train_step)
            yield

    return inside


def reason(outcome: TrialOutcome) -> str:
    assert outcome.message is not None
    return say(outcome.message)


@pytest.mark.parametrize("name", ERRORS)
def test_training_error_is_an_outcome_and_the_next_run_resumes(
    spec: StudySpec, failing: Callable[[Exception], AbstractContextManager[object]], tmp_path: Path, name: str
) -> None:
    error = ERRORS[name]()
    with failing(error):
        execute(spec, tmp_path / "study")
    state = name.partition("-")[0]
    outcomes = read_study(tmp_path / "study").outcomes
    assert {(o.state, o.steps) for o in outcomes.values()} == {(state, 2)}
    assert ("Traceback" in reason(outcomes["r2"])) == (state == "failed")
    assert str(error).splitlines()[0] in reason(outcomes["r4"])
    assert execute(spec, tmp_path / "study").begun == [2]
    execute(spec, tmp_path / "undisturbed")
    assert read_study(tmp_path / "study") == read_study(tmp_path / "undisturbed")


def test_failed_trial_is_exit_code_1_with_a_report(
    lorascope: Lorascope,
    arguments: tuple[str, ...],
    failing: Callable[[Exception], AbstractContextManager[object]],
    tmp_path: Path,
) -> None:
    with failing(ZeroDivisionError("of all things")):
        code, out, err = lorascope(*arguments)
    assert (code, err) == (1, "")
    assert "r2 failed after 2 steps: ZeroDivisionError: of all things" in out
    summary = json.loads((tmp_path / "study" / "summary.json").read_text(encoding="utf-8"))
    assert [trial["outcome"] for trial in summary["trials"]] == ["failed", "failed"]
    assert (tmp_path / "study" / "report.html").is_file()
    code, out, _ = lorascope(*arguments)
    assert code == 0
    assert "2 done before" in out


def test_out_of_memory_in_a_solo_run_leaves_the_cost_unknown(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = spec.model_copy(update={"cost": "quick"})

    def train_step(frozen: FrozenModel, trials: list[TrainingTrial], *args: Any, **kwargs: Any) -> object:
        if trials[0].record.rank == 4:
            raise MemoryError("no more")
        return engine_step.train_step(frozen, trials, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(solo_run, "train_step", train_step)
        watcher = execute(measured, tmp_path / "study")
    assert [note for note in watcher.notes if "rank 4 was measured alone (no more)" in note]
    assert {o.state for o in read_study(tmp_path / "study").outcomes.values()} == {"finished"}
    assert [part.step_seconds is None for part in summarize(tmp_path / "study").ranks] == [False, True]
    again = execute(measured, tmp_path / "study")  # a rank without its measurement is measured by the next run
    assert again.steps == []
    assert all(part.step_seconds for part in summarize(tmp_path / "study").ranks)


def test_diverged_rate_leaves_other_trials_and_the_report(
    lorascope: Lorascope, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    code, out, err = lorascope(*arguments, "--learning-rates", "1e-3,1e30", "--max-grid-extensions", 0)
    assert (code, err) == (1, "")
    left = read_study(tmp_path / "study")
    assert {name: o.state for name, o in left.outcomes.items()} == {
        "r2-lr0.001": "finished", "r4-lr0.001": "finished", "r2-lr1e+30": "diverged", "r4-lr1e+30": "diverged",
    }  # fmt: skip
    assert "not finite" in reason(left.outcomes["r2-lr1e+30"])
    assert {Path(name).parts[1] for name in left.adapters} == {"r2", "r4", "r2-lr0.001", "r4-lr0.001"}
    text = (tmp_path / "study" / "summary.json").read_text(encoding="utf-8")
    ranks = json.loads(text, parse_constant=pytest.fail)["ranks"]
    assert [rank["best_learning_rate"] for rank in ranks] == [1e-3, 1e-3]
    assert "r2-lr1e+30 diverged" in out


def test_study_whose_trials_all_diverge_says_so(
    lorascope: Lorascope, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    code, _, err = lorascope(*arguments, "--learning-rates", "1e30")
    assert (code, err) == (1, "")
    assert (tmp_path / "study" / "report.html").is_file()
    json.loads((tmp_path / "study" / "summary.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    code, _, err = lorascope("export", tmp_path / "study", "--rank", 2, "--to", tmp_path / "new")
    assert code == 2
    assert "every trial of rank 2 diverged" in err


def test_trial_that_diverges_in_its_last_update_is_not_finished(
    model_folders: Mapping[str, str], rows_file: str, tmp_path: Path
) -> None:
    spec = study_of(model_folders["llama"], rows_file, max_steps=1, ranks=(2,), learning_rates=(1e-3, 1e38))
    execute(spec, tmp_path / "study")
    left = read_study(tmp_path / "study")
    assert left.outcomes["r2-lr0.001"].state == "finished"
    assert left.outcomes["r2-lr1e+38"].state == "diverged"
    assert left.outcomes["r2-lr1e+38"].message == Message("trial.eval_not_finite", step=1)


@pytest.fixture
def killed(spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study that failed in its last evaluation; returns its newest checkpoint."""
    checkpoint_every_step(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(study, "choose_adapters", lambda place, store: None)
        patch.setattr(loop, "_evaluate", lambda group, active, step: active if step < 4 else 1 / 0)
        execute(spec, tmp_path / "study")
    return tmp_path / "study" / "checkpoints" / "round-0.safetensors"


def test_damaged_checkpoint_falls_back_to_the_one_before(spec: StudySpec, tmp_path: Path, killed: Path) -> None:
    killed.write_bytes(killed.read_bytes()[:-100])
    watcher = execute(spec, tmp_path / "study")
    assert watcher.begun == [3]
    assert any("round-0.safetensors cannot be used" in note and "an older one" in note for note in watcher.notes)
    execute(spec, tmp_path / "undisturbed")
    assert read_study(tmp_path / "study").steps == read_study(tmp_path / "undisturbed").steps


def test_damaged_checkpoint_without_an_older_one_is_named(spec: StudySpec, tmp_path: Path, killed: Path) -> None:
    for checkpoint in killed.parent.iterdir():
        checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(LorascopeError, match=r"round-0.*safetensors cannot be used"):
        execute(spec, tmp_path / "study")
    for checkpoint in killed.parent.iterdir():
        checkpoint.unlink()
    execute(spec, tmp_path / "study")
    assert {o.state for o in read_study(tmp_path / "study").outcomes.values()} == {"finished"}


def test_checkpoint_ahead_of_the_store_is_not_used(spec: StudySpec, tmp_path: Path, killed: Path) -> None:
    """A store that lost its last commits would else have a hole in its curves."""
    with StudyStore.create(tmp_path / "study" / "study.db") as store:
        store.truncate_after(["r2"], 3)
    assert execute(spec, tmp_path / "study").begun == [3]
    assert [record.step for record in read_study(tmp_path / "study").steps["r2"]] == [1, 2, 3, 4]


def test_export_of_a_rank_that_diverged_says_so(spec: StudySpec, tmp_path: Path) -> None:
    execute(spec.model_copy(update={"learning_rates": (1e30,)}), tmp_path / "study")
    with pytest.raises(InputError, match="every trial of rank 2 diverged"):
        export_adapter(tmp_path / "study", 2, tmp_path / "out", merge=False)

import io
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from lorascope.analysis import summarize
from lorascope.cli import main
from lorascope.cli.result import show_result
from lorascope.errors import InputError, Interrupted
from lorascope.records import OutcomeState
from lorascope.run.trackers import Tracker
from lorascope.spec.load import find_study, load_spec, preset_names
from lorascope.spec.schema import StudySpec
from support.cli import Asked, FakeRun
from support.messages import verbatim


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> str | int | None:
    with pytest.raises(SystemExit) as caught:
        main(["run", *arguments])
    return caught.value.code


def replaced_run(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run_study(spec: StudySpec, folder: Path, *, trackers: Sequence[Tracker], command: str) -> None:
        raise error

    monkeypatch.setitem(sys.modules, "lorascope.run.study", SimpleNamespace(run_study=run_study))


def test_run_ends_with_table_recommendation_and_paths(fake_run: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--ranks", "8,128", "--out", "here") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "step 20/20" in out
    assert "95 % interval" in out
    assert out.count("1.2500") >= 2
    assert "Use rank" in out
    assert "report:   here/report.html" in out
    assert "adapters: here/adapters" in out
    assert Path("here/report.html").is_file()


def test_the_end_of_a_run_loads_and_summarises_the_study_once(fake_run: FakeRun, times_read: Counter[str]) -> None:
    assert run("--ranks", "8,128", "--out", "here") == 0
    assert times_read == {"loaded": 1, "summarised": 1}


def test_run_json_is_alone_on_stdout(fake_run: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--ranks", "8,128", "--out", "here", "--json") == 0
    out, err = capsys.readouterr()
    summary = json.loads(out)
    assert [rank["rank"] for rank in summary["ranks"]] == [8, 128]
    assert out == Path("here/summary.json").read_text()
    assert "step 20/20" in err


@pytest.mark.parametrize("state", ["diverged", "oom", "failed"])
def test_run_with_an_unfinished_trial_is_exit_code_1(
    fake_run: FakeRun, capsys: pytest.CaptureFixture[str], state: OutcomeState
) -> None:
    fake_run.state, fake_run.message = state, verbatim("for a reason")
    assert run("--ranks", "8", "--out", "here") == 1
    assert f"r8 {state}: for a reason" in capsys.readouterr().out


def test_run_with_bad_input_is_one_message_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replaced_run(monkeypatch, InputError("there is no file rows.json", remedy="check the path"))
    assert run("--dataset", "rows.json") == 2
    out, err = capsys.readouterr()
    assert err == "lorascope: there is no file rows.json\n  -> check the path\n"
    assert not Path("studies").exists()
    assert out == "starting\n"


@pytest.mark.parametrize("error", [Interrupted("stopped as asked"), KeyboardInterrupt()])
def test_run_interrupted_is_exit_code_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    replaced_run(monkeypatch, error)
    assert run() == 130
    assert "run the same command to continue" in capsys.readouterr().err


def test_run_without_arguments_is_the_demo(asked: list[Asked]) -> None:
    assert run() == 130
    ((spec, folder, command),) = asked
    assert spec == load_spec(find_study("demo"), {})
    assert folder == Path("studies/demo")
    assert command.startswith("lorascope")


@pytest.mark.parametrize("name", preset_names())
def test_run_takes_a_preset_in_place_of_a_file(asked: list[Asked], name: str) -> None:
    run(name)
    ((spec, folder, _),) = asked
    assert spec == load_spec(find_study(name), {})
    assert folder == Path("studies") / name


def test_run_flags_override_the_file(asked: list[Asked]) -> None:
    Path("mine.yaml").write_text("model: a/b\ndataset: rows.json\nranks: [4]\nmax_steps: 3\npacking: false\n")
    run("mine.yaml", "--ranks", "8,16", "--learning-rates=1e-4,3e-4", "--target-modules", "q_proj,v_proj")
    ((spec, folder, _),) = asked
    expected = StudySpec(
        model="a/b", dataset="rows.json", ranks=(8, 16), max_steps=3, packing=False, learning_rates=(1e-4, 3e-4),
        target_modules=("q_proj", "v_proj"),
    )  # fmt: skip
    assert spec == expected
    assert folder == Path("studies/b-rows")


def test_run_dataset_flag_may_be_repeated(asked: list[Asked]) -> None:
    run("--dataset", "a,b.json", "--dataset", "c/d", "--mix", "0.7,0.3", "--streaming", "--max-rows", "100")
    ((spec, folder, _),) = asked
    assert spec == StudySpec(dataset=("a,b.json", "c/d"), mix=(0.7, 0.3), streaming=True, max_rows=100)
    assert folder == Path("studies/smollm2-135m-a-b-d")
    run("--dataset", "a.json")
    assert asked[1][0].dataset == "a.json"


@pytest.mark.parametrize(("flag", "alpha"), [("16", 16.0), ("16,32", (16.0, 32.0)), ("8=4.5,16=4", {8: 4.5, 16: 4.0})])
def test_run_lora_alpha_is_one_or_an_axis_or_one_per_rank(asked: list[Asked], flag: str, alpha: object) -> None:
    run("--ranks", "8,16", "--lora-alpha", flag, "--max-memory", "8GB", "--max-seconds", "90")
    ((spec, _, _),) = asked
    assert (spec.lora_alpha, spec.max_memory, spec.max_seconds) == (alpha, "8GB", 90.0)


def test_run_result_has_the_baseline_and_the_limits(fake_run: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--ranks", "8,128", "--out", "here", "--max-adapter-mb", "50") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "The usual script, with one learning rate (0.002)" in out
    assert "scale 4 at rank 8, 0.25 at rank 128" in out
    assert "No rank is within the limits; rank 8 comes nearest: adapter not measured (limit 50.0 MB)" in out


def test_run_flags_of_the_search(asked: list[Asked]) -> None:
    run("--learning-rates", "auto", "--no-early-exit", "--max-grid-extensions", "0")
    ((spec, _, _),) = asked
    assert (spec.learning_rates, spec.early_exit, spec.max_grid_extensions) == ("auto", False, 0)


def test_run_with_a_model_or_dataset_uses_defaults(asked: list[Asked]) -> None:
    run("--model", "org/Some Model", "--dataset", "data/rows.v2.jsonl", "--no-packing", "--max-steps", "2")
    ((spec, folder, _),) = asked
    assert spec == StudySpec(model="org/Some Model", dataset="data/rows.v2.jsonl", packing=False, max_steps=2)
    assert folder == Path("studies/some-model-rows.v2")


def test_run_reports_every_wrong_flag_at_once(asked: list[Asked], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--ranks", "8,0,many,-4", "--max-steps", "-1", "--alpha-rule", "fixd", "--learning-rates", "nan") == 2
    out, err = capsys.readouterr()
    assert asked == []
    assert out == ""
    for problem in ("ranks[1] is 0", "ranks[2] is 'many'", "ranks[3] is -4", "max_steps is -1", "alpha_rule is 'fixd'"):
        assert problem in err
    assert "learning_rates[0] is nan" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rnaks", "8"], "--rnaks"),
        (["--max-steps"], "--max-steps"),
        (["--ranks", "8", "--ranks", "9"], "--ranks"),
        (["absent.yaml"], "absent.yaml"),
        (["absent"], "opt-350m-codealpaca-alpha32"),
        (["."], "is a folder"),
        (["demo", "more"], "more"),
    ],
)
def test_run_with_bad_arguments_is_exit_code_2(
    asked: list[Asked], capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert asked == []


def test_run_result_table_fits_the_width(fake_run: FakeRun) -> None:
    run("--ranks", "8,128", "--out", "here")
    summary = summarize(Path("here"))
    for width in (60, 80, 120):
        file = io.StringIO()
        console = Console(file=file, width=width)
        show_result(console, summary, Path("here"), Path("here/report.html"))
        lines = file.getvalue().splitlines()
        (start,) = [number for number, line in enumerate(lines) if "95 % interval" in line]
        assert all(len(line) <= width for line in lines[start : start + 4])
        assert all("1.2500–1.2500" in line for line in lines[start + 2 : start + 4])
        assert "…" not in "".join(lines)


def test_run_template_flag_unescapes_line_breaks(fake_run: FakeRun) -> None:
    assert run("--prompt-template", r"Q: {q}\n A: ", "--completion-template", "{a}", "--out", "here") == 0
    assert load_spec(Path("here/study.yaml"), {}).prompt_template == "Q: {q}\n A: "

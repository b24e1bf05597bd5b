import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from lorascope.cli import main
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
    def run_study(spec: StudySpec, folder: Path, *, trackers: Sequence[Tracker], command: str, began: float) -> None:
        raise error

    monkeypatch.setitem(sys.modules, "lorascope.run.study", SimpleNamespace(run_study=run_study))


def test_run_ends_with_answer_table_and_next_command(fake_run: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--ranks", "8,128", "--out", "here") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "step=20/20 rank=8 learning_rate=0.002" in out
    screen = out[out.index("writing the report") :]
    for shown in ("vs best (95 %)", "UNDECIDED", "lorascope run here --seeds", "Report      here/report.html"):
        assert shown in screen
    assert screen.count("1.250") >= 2
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
    assert "step=20/20" in err


@pytest.mark.parametrize("state", ["diverged", "oom", "failed"])
def test_run_with_an_unfinished_trial_is_exit_code_1(
    fake_run: FakeRun, capsys: pytest.CaptureFixture[str], state: OutcomeState
) -> None:
    fake_run.state, fake_run.message = state, verbatim("for a reason")
    assert run("--ranks", "8", "--out", "here") == 1
    name = {"oom": "out of memory"}.get(state, state)
    assert f"FAILED     rank 8 {name} after 20 steps: for a reason" in capsys.readouterr().out


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
def test_run_interrupted_before_training_names_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    replaced_run(monkeypatch, error)
    monkeypatch.setattr(sys, "argv", ["lorascope", "run", "my study.yaml"])
    assert run() == 130
    assert capsys.readouterr().err == (
        "lorascope: stopped before training; to begin again: lorascope run 'my study.yaml'\n"
    )


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_run_interrupted_shows_what_it_has_and_how_to_continue(
    fake_run: FakeRun, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]
) -> None:
    fake_run.stop_at = 8
    assert run("--ranks", "8,128", "--out", "here", *flags) == 130
    out, err = capsys.readouterr()
    screen = err if flags else out
    assert "TOO EARLY  At step 8 of 20, with 0 of 2 runs ended, there is no verdict yet." in screen
    assert "To continue lorascope run here\n" in screen
    assert not flags or out == ""


def test_run_continues_the_folder_of_a_study(fake_run: FakeRun, asked: list[Asked]) -> None:
    Path("studies/mine").mkdir(parents=True)
    Path("studies/mine/study.yaml").write_text("model: a/b\ndataset: rows.json\nranks: [4]\n")
    run("studies/mine", "--seeds", "0,1")
    ((spec, folder, _),) = asked
    assert spec == StudySpec(model="a/b", dataset="rows.json", ranks=(4,), seeds=(0, 1))
    assert folder == Path("studies/mine")


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


def test_run_without_a_rank_within_the_limits_says_which_comes_nearest(
    fake_run: FakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--ranks", "8,128", "--out", "here", "--max-adapter-mb", "50") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "NO ANSWER No rank is within the limits; rank 8 comes nearest: adapter not measured (limit 50.0 MB)" in out
    assert "Adapter  " not in out


def test_notes_hold_what_the_screen_leaves_out(fake_run: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--ranks", "8,128", "--out", "here") == 0
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(["report", "here", "--notes"])
    assert caught.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    for shown in ("Verdict", "Caveats", "The usual script, with one learning rate (0.002)", "0.25 at rank 128"):
        assert shown in out
    assert out.endswith("here/report.html")


def test_report_with_another_tolerance_judges_anew(fake_run: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--ranks", "8,128", "--seeds", "0,1", "--out", "here") == 0
    before = Path("here/study.yaml").read_text()
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(["report", "here", "--tolerance", "0.01"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "within 0.01" in out
    assert out.splitlines()[-1] == "here/report.html"
    assert json.loads(Path("here/summary.json").read_text())["study"]["tolerance"] == 0.01
    assert Path("here/study.yaml").read_text() == before


def test_report_refuses_a_tolerance_that_is_none(fake_run: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--ranks", "8,128", "--out", "here") == 0
    with pytest.raises(SystemExit) as caught:
        main(["report", "here", "--tolerance", "-1"])
    assert caught.value.code == 2
    assert "tolerance is -1.0: input should be greater than 0" in capsys.readouterr().err


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


def test_run_template_flag_unescapes_line_breaks(fake_run: FakeRun) -> None:
    assert run("--prompt-template", r"Q: {q}\n A: ", "--completion-template", "{a}", "--out", "here") == 0
    assert load_spec(Path("here/study.yaml"), {}).prompt_template == "Q: {q}\n A: "

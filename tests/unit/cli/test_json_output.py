"""What commands write for programs obeys the schemas that ship with the package."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

import output_reference
from lorascope.cli import main
from lorascope.cli.app import app
from lorascope.cli.doctor import find_problems, machine_facts
from lorascope.cli.event_stream import EventStream
from lorascope.errors import InputError, Interrupted
from lorascope.records import LookRecord
from lorascope.run.trackers import Tracker
from lorascope.spec.schema import StudySpec
from support.cli import RESOLVED, FakeRun, Script
from support.messages import verbatim

EVENTS = json.loads((output_reference.FOLDER / "events.schema.json").read_text(encoding="utf-8"))
OUTPUTS = json.loads((output_reference.FOLDER / "outputs.schema.json").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def call(*arguments: str) -> str | int | None:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return caught.value.code


def read_events(text: str) -> list[dict[str, Any]]:
    """Read every line, and hold it against the schema."""
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        jsonschema.validate(line, EVENTS)
    return lines


def object_of(command: str, text: str) -> dict[str, Any]:
    found = json.loads(text)
    jsonschema.validate(found, OUTPUTS | {"$ref": f"#/$defs/{output_reference.OUTPUTS[command].__name__}"})
    return found


def test_json_reference_and_schemas_are_generated() -> None:
    run = "run: python tools/output_reference.py"
    assert output_reference.PAGE.read_text(encoding="utf-8") == output_reference.page(), run
    assert output_reference.outputs_schema() == OUTPUTS, run
    assert output_reference.events_schema() == EVENTS, run


def test_every_command_has_json() -> None:
    commands = {command for command in app if not command.startswith("-")}
    assert {"run", "report"} | set(output_reference.OUTPUTS) == commands
    for command in commands:
        assert "json" in app[command].default_command.__annotations__


def test_run_json_events_are_alone_on_stdout_and_end_with_the_answer(
    fake_run: FakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", "--ranks", "8,128", "--out", "here", "--json-events") == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = read_events(out)
    assert [line["event"] for line in lines[:3]] == ["started", "study", "phase"]
    assert lines[1]["folder"] == "here"
    assert [trial["rank"] for line in lines if line["event"] == "round" for trial in line["trials"]] == [8, 128]
    steps = [line for line in lines if line["event"] == "step"]
    assert [line["step"] for line in steps if line["trial_id"] == "r8"] == list(range(1, 21))
    assert steps[0]["loss"] == 1.5
    assert {(line["step"], line["loss"]) for line in lines if line["event"] == "evaluation"} == {(0, 2.0), (20, 1.25)}
    answer, ended = lines[-2:]
    summary = json.loads(Path(answer["summary"]).read_text(encoding="utf-8"))
    assert (answer["status"], answer["text"]) == (summary["answer"]["status"], summary["answer"]["text"])
    assert answer["rank"] == summary["recommendation"]["use"]["rank"]
    assert answer["next_steps"][0]["command"].startswith("lorascope run here")
    assert Path(answer["report"]).is_file()
    assert ended == {"event": "ended", "state": "done", "exit_code": 0, "problem": None, "remedy": None}


def test_run_json_events_of_a_diverged_trial_have_no_number_that_json_lacks(
    fake_run: FakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_run.state, fake_run.message = "diverged", verbatim("for a reason")
    assert call("run", "--ranks", "8", "--out", "here", "--json-events") == 1
    lines = read_events(capsys.readouterr().out)
    outcome = next(line for line in lines if line["event"] == "outcome")
    assert (outcome["state"], outcome["reason"]) == ("diverged", "for a reason")
    assert (lines[-1]["state"], lines[-1]["exit_code"]) == ("trial_failed", 1)


def test_infinite_losses_are_null(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    with EventStream(sys.stdout) as stream:
        script.begin(stream)
        script.step(stream, 1, loss=float("inf"))
        script.step(stream, 2, loss=float("nan"))
    losses = [line["loss"] for line in read_events(capsys.readouterr().out) if line["event"] == "step"]
    assert losses == [None] * 4


def test_looks_are_events(capsys: pytest.CaptureFixture[str]) -> None:
    look = LookRecord(
        look=1, ranks=(8, 128), lora_alphas=(32.0, 32.0), learning_rates=(1e-3, 1e-3), seeds=(0,), rows=24,
        information=0.5, next="rows", next_ranks=(8,), next_value=48, next_seconds=30.0,
    )  # fmt: skip
    with EventStream(sys.stdout) as stream:
        stream.look(look)
    found = read_events(capsys.readouterr().out)[1]
    assert (found["next"], found["next_value"], found["ranks"]) == ("rows", 48, [8, 128])
    assert found["text"].startswith("Look 1")


@pytest.mark.parametrize(
    ("error", "code", "state"),
    [
        (InputError("there is no file rows.json", remedy="check the path"), 2, "bad_input"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Interrupted("stopped"), 130, "interrupted"),
        (OSError("disk full"), 1, "error"),
    ],
)
def test_last_event_says_how_a_run_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, state: str
) -> None:
    def run_study(spec: StudySpec, folder: Path, *, trackers: Sequence[Tracker], command: str, began: float) -> None:
        sys.stdout.write("what a library prints")
        raise error

    monkeypatch.setitem(sys.modules, "lorascope.run.study", SimpleNamespace(run_study=run_study))
    assert call("run", "--json-events") == code
    out, err = capsys.readouterr()
    ended = read_events(out)[-1]
    assert (ended["exit_code"], ended["state"]) == (code, state)
    assert "what a library prints" in err
    if state == "bad_input":
        assert (ended["problem"], ended["remedy"]) == ("there is no file rows.json", "check the path")


def test_refused_flags_are_the_last_event(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", "--ranks", "0", "--json-events") == 2
    lines = read_events(capsys.readouterr().out)
    assert [line["event"] for line in lines] == ["started", "ended"]
    assert "ranks" in lines[-1]["problem"]


def test_run_takes_one_form_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", "--json", "--json-events") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "give one of them" in err


def test_report_json_is_the_summary(fake_run: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", "--ranks", "8", "--out", "here") == 0
    capsys.readouterr()
    assert call("report", "here", "--json") == 0
    assert capsys.readouterr().out == Path("here/summary.json").read_text(encoding="utf-8")
    assert call("report", "here", "--json", "--notes") == 2


def test_doctor_json_has_the_checks(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("doctor", "--json") == 0
    found = object_of("doctor", capsys.readouterr().out)
    assert [check["name"] for check in found["checks"]] == [check.name for check in find_problems(machine_facts())]


def test_push_and_export_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pages = SimpleNamespace(push_adapter=lambda *_, **options: "https://hub.example/me/adapter")
    monkeypatch.setitem(sys.modules, "lorascope.run.push", pages)
    assert call("push", "study", "me/adapter", "--rank", "8", "--json") == 0
    found = object_of("push", capsys.readouterr().out)
    assert found == {"url": "https://hub.example/me/adapter", "repo": "me/adapter", "rank": 8}
    monkeypatch.setitem(sys.modules, "lorascope.run.export", SimpleNamespace(export_adapter=lambda *_, **options: None))
    assert call("export", "study", "--rank", "8", "--to", "there", "--merge", "--json") == 0
    found = object_of("export", capsys.readouterr().out)
    assert (found["to"], found["rank"], found["merged"]) == ("there", 8, True)


def test_export_json_says_where_each_tracker_has_the_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    exporter = SimpleNamespace(export_runs=lambda folder, name: f"runs of {name}")
    monkeypatch.setitem(sys.modules, "lorascope.run.trackers.export", exporter)
    monkeypatch.setattr("lorascope.report.write_report", lambda folder: None)
    assert call("export", "study", "--to-tracker", "wandb,mlflow", "--json") == 0
    found = object_of("export", capsys.readouterr().out)
    assert found["trackers"] == {"wandb": "runs of wandb", "mlflow": "runs of mlflow"}


def test_serve_json_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("lorascope.web.studies.check_root", lambda folder: None)
    monkeypatch.setitem(
        sys.modules, "lorascope.web.server", SimpleNamespace(serve=lambda listener, *_, **options: listener.close())
    )
    assert call("serve", ".", "--port", "0", "--json") == 0
    assert object_of("serve", capsys.readouterr().out)["url"].startswith("http://127.0.0.1:")


def test_round_event_has_the_steps_of_each_trial(capsys: pytest.CaptureFixture[str]) -> None:
    script, stream = Script(), EventStream(sys.stdout)
    first, second = script.trials
    records = [record for step in (1, 2, 3) for record in script.records(step) if record.trial_id == first.trial_id]
    stream.begin(RESOLVED, script.trials, records)
    (event,) = read_events(capsys.readouterr().out)
    assert {one["trial_id"]: one["steps_done"] for one in event["trials"]} == {first.trial_id: 3, second.trial_id: 0}

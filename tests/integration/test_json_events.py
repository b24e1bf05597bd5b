"""Events of a real run, and of the same study once it is complete, obey their schema and agree with its records."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import output_reference
from lorascope.records import EvalRecord, StepRecord
from lorascope.spec.load import dump_spec
from lorascope.store import StudyStore
from support.studies import study_of

Lorascope = Callable[..., tuple[int, str, str]]


def events_of(text: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        jsonschema.validate(line, output_reference.events_schema())
    return lines


@pytest.mark.filterwarnings("ignore:fan_in_fan_out", "ignore:`is_gradient_checkpointing`")  # PEFT and Transformers
def test_events_of_a_run_are_its_records(
    lorascope: Lorascope, tmp_path: Path, model_folders: Mapping[str, str], rows_file: str
) -> None:
    spec = study_of(model_folders["llama"], rows_file, max_steps=2, eval_steps=2, cost="quick", truncation=False)
    (tmp_path / "my.yaml").write_text(dump_spec(spec), encoding="utf-8")
    folder = tmp_path / "study"
    code, out, _ = lorascope("run", tmp_path / "my.yaml", "--out", folder, "--json-events")
    lines = events_of(out)
    assert (code, lines[-1]["state"], lines[-1]["exit_code"]) == (0, "done", 0)
    with StudyStore.open(folder / "study.db") as store:
        steps, evaluations = store.read(StepRecord), store.read(EvalRecord)
    assert {(one["trial_id"], one["step"]): one["loss"] for one in lines if one["event"] == "step"} == {
        (record.trial_id, record.step): record.nats / record.target_tokens for record in steps
    }
    assert {(one["trial_id"], one["step"]): one["loss"] for one in lines if one["event"] == "evaluation"} == {
        (record.trial_id, record.step): record.loss for record in evaluations
    }
    assert {one["rank"] for one in lines if one["event"] == "solo_run"} == set(spec.ranks)
    answer = next(one for one in lines if one["event"] == "answer")
    again = events_of(lorascope("run", folder, "--json-events")[1])
    assert "step" not in {one["event"] for one in again}
    assert next(one for one in again if one["event"] == "answer") == answer

"""Rows and runs of trackers, made from records."""

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from lorascope.measure.environment import environment
from lorascope.records import EvalRecord, StepRecord
from lorascope.run.trackers.rows import tracked_runs, trial_rows
from lorascope.search.trials import plan_trials
from lorascope.spec.schema import StudySpec
from support.cli import RESOLVED


def step(number: int, loss: float = 2.0, *, warmup: bool = False) -> StepRecord:
    return StepRecord(
        trial_id="r8", step=number, nats=50 * loss, target_tokens=50, tokens=100, learning_rate=1e-3, grad_norm=1.0,
        seconds=0.5, warmup=warmup, group=0,
    )  # fmt: skip


def evaluation(number: int, loss: float) -> EvalRecord:
    return EvalRecord(trial_id="r8", step=number, example_nats=(10 * loss,), example_target_tokens=(10,), seconds=0.5)


def test_newest_step_waits_until_it_cannot_be_evaluated_any_more() -> None:
    evaluations = [evaluation(0, 3.0)]
    assert [row.step for row in trial_rows([step(1), step(2)], evaluations, None)] == [0, 1]
    rows = trial_rows([step(2), step(3)], [evaluation(2, 1.5)], None)
    assert [row.values.get("eval/loss") for row in rows] == [1.5]
    rows = trial_rows([step(3)], [], {"alone/step_seconds": 0.25})
    assert [(row.step, row.values["alone/step_seconds"]) for row in rows] == [(3, 0.25)]
    assert trial_rows([], [], {"alone/step_seconds": 0.25}) == []


def test_values_that_are_no_numbers_and_the_pace_of_warm_up_are_left_out() -> None:
    first, second = trial_rows([step(1, warmup=True), step(2, float("nan"))], [evaluation(2, float("inf"))], {})
    assert first.values.keys() == {"train/loss", "train/learning_rate", "train/grad_norm", "train/global_step"}
    assert second.values.keys() == first.values.keys() - {"train/loss"} | {"train/tokens_per_second"}
    assert second.values["train/tokens_per_second"] == 200


def test_ids_stay_when_the_folder_moves_and_change_with_the_steps() -> None:
    spec = StudySpec(ranks=(8, 64), dataset=("https://me:secret@example.org/rows.json", "more.json"))
    facts, trials = environment(device="cpu", device_name="cpu", seeds=(0,), command="lorascope run"), plan_trials(spec)
    runs = tracked_runs(Path("a/demo"), spec, RESOLVED, facts, trials)
    moved = tracked_runs(Path("b/other"), spec, RESOLVED, facts, trials)
    shorter = tracked_runs(Path("a/demo"), spec, replace(RESOLVED, total_steps=5), facts, trials)
    assert list(runs) == ["", "r8", "r64"]
    assert [run.is_trial for run in runs.values()] == [False, True, True]
    assert len({run.run_id for run in (*runs.values(), *shorter.values())}) == 6
    assert [run.run_id for run in moved.values()] == [run.run_id for run in runs.values()]
    assert {run.study.rpartition("-")[0] for run in runs.values()} == {"demo"}
    assert runs["r8"].config["rank"] == 8
    assert runs["r8"].config["dataset"] == ["https://***@example.org/rows.json", "more.json"]


def test_file_of_wandb_is_read_across_its_blocks_and_to_where_it_was_cut_off(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is missing: make test installs it")
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # chosen as it is imported

    from lorascope.run.trackers.wandb import read_records

    def history(number: int, padding: int) -> bytes:
        record = Record()
        record.history.step.num = number
        record.history.item.add(key="text", value_json="x" * padding)
        return record.SerializeToString()

    data = b":W&B" + bytes(3)
    for record in (history(1, 10), history(2, 70_000), history(3, 10)):
        kinds, rest = [1, 2, 3, 4], record
        while rest:
            left = 32768 - len(data) % 32768
            if left < 7:
                data += bytes(left)
                continue
            part, rest = rest[: left - 7], rest[left - 7 :]
            begins = len(part) + len(rest) == len(record)
            kind = kinds[0] if begins and not rest else kinds[1] if begins else kinds[2] if rest else kinds[3]
            data += struct.pack("<IHB", 0, len(part), kind) + part
    file = tmp_path / "run-1.wandb"
    file.write_bytes(data)
    assert [record.history.step.num for record in read_records(file)] == [1, 2, 3]
    file.write_bytes(data[:-5])
    assert [record.history.step.num for record in read_records(file)] == [1, 2]

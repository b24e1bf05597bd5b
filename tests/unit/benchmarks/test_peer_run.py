"""A peer trains on the same rows as lorascope, and its measurements are complete."""

import json
from pathlib import Path

import pytest
import torch

from engine_run import train_lorascope
from jobs import Job
from peer_run import train_peer
from support.tiny_models import STRINGS, make_model, train_tokenizer


@pytest.fixture
def job(tmp_path: Path) -> Job:
    tokenizer = train_tokenizer(bos=False)
    folder, rows = tmp_path / "model", tmp_path / "rows.jsonl"
    make_model("llama", torch.float32, vocabulary=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    cells = [{"instruction": f"{i} {STRINGS[i % 3]}", "output": str(i) * (i + 1)} for i in range(18)]
    rows.write_text("".join(f"{json.dumps(row)}\n" for row in cells), encoding="utf-8")
    return Job(program="lorascope-float32", ranks=(2, 4), model=str(folder), dataset=str(rows), rows=16)


@pytest.mark.filterwarnings("ignore")  # what Trainer and accelerate say of themselves is not ours to mend
@pytest.mark.parametrize("answers_only", [False, True])
def test_peer_run_has_the_rows_and_the_loss_of_lorascope(job: Job, *, answers_only: bool) -> None:
    few = job.model_copy(update={"rows": 8, "bound_steps": 1, "answers_only": answers_only})
    ours = train_lorascope(few)
    theirs = train_peer(few.model_copy(update={"program": "trainer", "ranks": (4,)}))
    assert theirs.data_hash == ours.data_hash
    assert (theirs.steps, ours.steps) == (1, 1)
    assert ours.tokens == 2 * theirs.tokens
    assert theirs.train_loss["r4"] == pytest.approx(ours.train_loss["r4"], rel=1e-4)
    assert 0 < theirs.train_seconds < theirs.process_seconds
    assert [share.step for share in ours.shares] == [1]
    assert ours.shares[0].flops > 0


def test_product_shares_are_of_steps_after_the_first(job: Job) -> None:
    ours = train_lorascope(job.model_copy(update={"max_steps": 3, "bound_steps": 5, "learning_rates": (1e-3, 2e-3)}))
    assert len(ours.step_losses) == 4
    assert [share.step for share in ours.shares] == [2, 3]
    assert [share.training_seconds for share in ours.shares] == list(ours.step_seconds[1:])


def test_rows_of_given_lengths_replace_the_data_set(job: Job) -> None:
    ours = train_lorascope(job.model_copy(update={"row_lengths": (30, 5, 9), "max_steps": 1}))
    assert ours.step_tokens == (2 * 44,)

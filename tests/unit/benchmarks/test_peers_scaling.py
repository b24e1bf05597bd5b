"""The scripts as they are called, with made-up measurements in place of processes."""

import json
from pathlib import Path
from typing import Any

import pytest

import peers
import results
import scaling
from jobs import PEERS, Job, Result
from starting import Start


def made_up(job: Job) -> Result:
    share = {"step": 1, "training_seconds": 2.0, "step_seconds": 1.0, "product_seconds": 0.5, "products": 9, "flops": 8}
    trials = {f"r{rank}-lr{rate}": 1.5 for rank in job.ranks for rate in job.learning_rates}
    return Result.model_validate(
        {
            "program": job.program, "ranks": job.ranks, "train_seconds": 6.0, "process_seconds": 9.0, "steps": 1,
            "peak_rss_bytes": 100, "before_rss_bytes": 40, "tokens": 8 * len(trials), "train_loss": trials,
            "step_losses": {name: (loss,) for name, loss in trials.items()}, "step_seconds": (4.0,),
            "step_tokens": (8 * len(trials),), "trainable_parameters": sum(job.ranks), "data_hash": "", "threads": 2,
            "dtype": "float32", "settings": {}, "shares": [share] if job.bound_steps else [],
        }
    )  # fmt: skip


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where results go."""
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    for script in (peers, scaling):
        monkeypatch.setattr(script, "measure", made_up)
        monkeypatch.setattr(script, "prepare_model", str.upper)
    monkeypatch.setattr(scaling, "start_seconds", lambda dataset: Start(training_begins=3.0, first_step_done=4.0))
    monkeypatch.setattr(scaling, "help_seconds", lambda: 0.25)
    return tmp_path / "results"


def only_result(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("*.json")
    text = path.read_text(encoding="utf-8")
    assert str(folder.parent) not in text
    return json.loads(text)


def test_peers_script(written: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = written.parent / "rows.json"
    rows.touch()
    monkeypatch.setattr("sys.argv", ["peers.py", "--with-float32", "--dataset", str(rows), "--ranks", "4,8"])
    peers.main()
    shown = capsys.readouterr().out
    assert "need 50% (50%-50%) of a lorascope step's time (25% of the same step in the training)" in shown
    assert "│ trl-packed" in shown
    assert "2.00 (2.00-2.00)" in shown
    result = only_result(written)
    assert [standing["program"] for standing in result["standings"]] == [
        "lorascope", "lorascope-shared", *PEERS[:4]
    ]  # fmt: skip
    assert [len(one) for one in result["rounds"]] == [6, 6, 6]
    assert result["largest_loss_difference_to_float32"] == 0
    assert result["what"]["dataset"] == "rows.json"


def test_scaling_script(written: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["scaling.py"])
    scaling.main()
    shown = capsys.readouterr().out
    assert "training begins after 3.0 s, its first step is done after 4.0 s" in shown
    assert "--help: 0.25 s" in shown
    result = only_result(written)
    assert [case["tokens"] for case in result["trials"]] == [8, 24, 72, 144]
    assert [case["name"] for case in result["rows"]] == ["64 rows", "256 rows", "1024 rows"]
    assert [case["bound_token_seconds"] for case in result["lengths"]] == [0.5 / 8] * 4
    assert len(result["second_start_seconds"]) == 3

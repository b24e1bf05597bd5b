"""Encoding in processes gives what one process gives, and names the same mistakes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from lorascope.data import processes
from lorascope.data.dataset import Splits
from lorascope.data.prepare import prepare
from lorascope.errors import InputError
from lorascope.spec.schema import StudySpec


@pytest.fixture
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "encode_cached", lambda encoder, rows, encode: encode())
    monkeypatch.setattr(processes, "MANY_ROWS", 20)
    monkeypatch.setattr(processes, "_BATCH_ROWS", 7)


def write(path: Path, *, broken: tuple[int, ...] = ()) -> StudySpec:
    rows: list[dict[str, Any]] = [
        {
            "messages": [
                {"role": "user", "content": f"add {n % 60} and {n}"},
                {"role": "assistant", "content": "sum " * n if n % 9 else ""},
            ]
        }
        for n in range(80)
    ]
    for number in broken:
        rows[number - 1]["messages"] = [3]
    path.write_text("\n".join(map(json.dumps, rows)))
    return StudySpec(dataset=str(path), max_length=64)


@pytest.mark.usefixtures("few_are_many")
def test_processes_give_the_rows_of_one_process(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    spec = write(tmp_path / "rows.jsonl")
    told: list[tuple[int, int]] = []

    def result(n_processes: int) -> tuple[Splits, str]:
        splits = prepare(spec, tokenizer, processes=n_processes, tell=lambda *done: told.append(done))
        return splits, splits.data_hash

    (alone, one), (together, two) = result(1), result(2)
    assert one == two
    assert alone.notes == together.notes
    assert {note.code for note in alone.notes} >= {"rows.dropped_empty_answer", "rows.truncated"}
    assert told == []


@pytest.mark.usefixtures("few_are_many")
def test_processes_name_the_first_unusable_row(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    spec = write(tmp_path / "rows.jsonl", broken=(44, 71))
    for n_processes in (1, 2):
        with pytest.raises(InputError, match="row 44 ") as caught:
            prepare(spec, tokenizer, processes=n_processes)
        assert caught.value.remedy


@pytest.mark.usefixtures("few_are_many")
def test_progress_is_told_in_rows(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_TELL_SECONDS", 0.0)
    told: list[tuple[int, int]] = []
    prepare(write(tmp_path / "rows.jsonl"), tokenizer, tell=lambda *done: told.append(done))
    assert told == [(min(80, 7 * batch), 80) for batch in range(1, 13)]


@pytest.mark.usefixtures("few_are_many")
def test_a_process_that_dies_leaves_the_rows_to_this_one(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write(tmp_path / "rows.jsonl")
    expected = prepare(spec, tokenizer).data_hash
    monkeypatch.setattr(processes, "_begin", exit)
    assert prepare(spec, tokenizer, processes=2).data_hash == expected


def test_a_main_module_is_not_run_again(tmp_path: Path) -> None:
    """As a user's script that has no ``if __name__ == "__main__"``."""
    script = tmp_path / "script.py"
    script.write_text(
        "from lorascope.data import processes\n"
        "from lorascope.data.prepare import prepare\n"
        "from lorascope.spec.schema import StudySpec\n"
        "from transformers import ByT5Tokenizer\n"
        "print('begun')\n"
        "processes.MANY_ROWS = 20\n"
        "processes.encode_cached = lambda encoder, rows, encode: encode()\n"
        f"spec = StudySpec(dataset={str(tmp_path / 'rows.csv')!r})\n"
        "print(len(prepare(spec, ByT5Tokenizer(), processes=2).train))\n"
    )
    (tmp_path / "rows.csv").write_text("text\n" + "".join(f"row {n}\n" for n in range(40)))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["begun", "36"]

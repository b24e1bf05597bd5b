"""``lorascope rows`` over a tokenizer without a model's weights."""

import json
from pathlib import Path

import jsonschema
import pytest
from rich.console import Console
from transformers import LlamaConfig

import output_reference
from lorascope.cli import main
from lorascope.cli.rows import _marked
from lorascope.records import ShownRow
from support.tiny_models import VOCABULARY, train_tokenizer


@pytest.fixture
def model(tmp_path: Path) -> str:
    train_tokenizer(bos=False).save_pretrained(tmp_path / "model")
    LlamaConfig(vocab_size=VOCABULARY).save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def rows(*arguments: str) -> str | int | None:
    with pytest.raises(SystemExit) as caught:
        main(["rows", *arguments])
    return caught.value.code


def write(path: Path, *, answer: str = "sum {n}") -> str:
    talk = [
        {"messages": [{"role": "user", "content": f"add {n}"}, {"role": "assistant", "content": answer.format(n=n)}]}
        for n in range(19)
    ]
    path.write_text(json.dumps([*talk, {"messages": [{"role": "user", "content": "no answer"}]}]))
    return str(path)


def test_rows_are_shown_with_their_targets_and_what_was_dropped(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rows("--model", model, "--dataset", write(tmp_path / "rows.json"), "--show", "2") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Format messages: 17 rows to train on, 2 held out.\nTokens of a row: median ")
    assert "0% are cut at max_length 1,024." in shown
    assert "note: Conversations of 'train' without a turn of the assistant, dropped from 20: 1.\n" in shown
    assert shown.count("<|user|>\nadd ") == shown.count("</s>\n<|assistant|>\n[[sum ") == shown.count("</s>\n]]") == 2
    assert "\nRow 2: " in shown
    assert not (tmp_path / "studies").exists()


def test_share_of_cut_rows_counts_those_that_lost_all_targets(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", model, "--dataset", write(tmp_path / "rows.json", answer="the sum " * 40)]
    assert rows(*arguments, "--max-length=40", "--show=0") == 0
    shown = capsys.readouterr().out
    assert "100% are cut at max_length 40." in shown
    assert "Rows of 'train' cut at max_length (40 tokens), of 19: 19." in shown
    assert "Row 1" not in shown


def test_rows_json_has_the_same_facts_and_whole_rows(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rows("--model", model, "--dataset", write(tmp_path / "rows.json"), "--show", "2", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    schema = json.loads((output_reference.FOLDER / "outputs.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(found, schema | {"$ref": "#/$defs/RowsOutput"})
    assert (found["format"], found["train_examples"], found["eval_examples"]) == ("messages", 17, 2)
    assert found["notes"] == ["Conversations of 'train' without a turn of the assistant, dropped from 20: 1."]
    assert [row["row"] for row in found["shown"]] == [1, 2]
    for row in found["shown"]:
        assert "<|user|>" in row["pieces"][0]
        assert row["pieces"][1].startswith("sum ")
        assert 0 < row["targets"] < row["tokens"]


def test_rows_that_cannot_be_read_are_refused(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([{"messages": [{"role": "critic", "content": "x"}]}] * 20))
    assert rows("--model", model, "--dataset", str(tmp_path / "rows.json")) == 2
    assert "row 1 has a turn with the unknown role 'critic'" in capsys.readouterr().err
    assert rows("--show", "-1") == 2


def test_targets_are_highlighted_in_a_terminal() -> None:
    console = Console(force_terminal=True, color_system="standard", width=80)
    with console.capture() as capture:
        console.print(_marked(ShownRow(row=1, pieces=("[bold]ask ", "tell"), tokens=2, targets=1)))
    assert capture.get() == "[bold]ask \x1b[7;32mtell\x1b[0m\n"

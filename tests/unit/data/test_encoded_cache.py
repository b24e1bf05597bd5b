"""Cache of tokenised rows: hits for equal content alone, and a bounded size."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from lorascope.data import encoded, encoded_cache, processes
from lorascope.data.prepare import prepare
from lorascope.spec.schema import StudySpec


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(processes, "MANY_ROWS", 20)
    monkeypatch.setenv("LORASCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rows"


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the first rows of the batches that were encoded."""
    done: list[int] = []
    encode = encoded.Encoder.encode

    def counted(self: encoded.Encoder, rows: Any, first_number: int) -> encoded.EncodedRows:
        done.append(first_number)
        return encode(self, rows, first_number)

    monkeypatch.setattr(encoded.Encoder, "encode", counted)
    return done


def write(path: Path, n: int = 40) -> str:
    rows = [{"prompt": f"add {k}", "completion": f"sum {k}" if k % 5 else " "} for k in range(n)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def test_equal_rows_are_encoded_once(
    tmp_path: Path, cache: Path, encodings: list[int], tokenizer: PreTrainedTokenizerFast
) -> None:
    spec = StudySpec(dataset=write(tmp_path / "a.jsonl"))
    first = prepare(spec, tokenizer)
    assert encodings == [1]
    again = prepare(StudySpec(dataset=write(tmp_path / "b.jsonl"), split_seed=0), tokenizer)
    other_split = prepare(spec.model_copy(update={"split_seed": 1, "eval_examples": 4}), tokenizer)
    assert encodings == [1]
    assert first.data_hash == again.data_hash != other_split.data_hash
    assert first.notes == again.notes != ()
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("change", ["content", "part", "max_length", "template", "chat_template", "special", "code"])
def test_what_changes_the_tokens_is_encoded_anew(
    tmp_path: Path,
    cache: Path,
    encodings: list[int],
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    spec, other = StudySpec(dataset=write(tmp_path / "rows.jsonl")), copy.deepcopy(tokenizer)
    prepare(spec, tokenizer)
    fields: dict[str, Any] = {}
    if change == "content":
        write(tmp_path / "rows.jsonl", n=41)
    if change == "part":
        fields = {"split": "train[:30]"}
    if change == "max_length":
        fields = {"max_length": 5}
    if change == "template":
        fields = {"prompt_template": "{prompt}: "}
    if change == "chat_template":
        other.chat_template = "{{ messages }}"
    if change == "special":
        other.eos_token = "<s>"
    if change == "code":
        monkeypatch.setattr(encoded_cache, "_hash_code", lambda: "another")
    prepare(spec.model_copy(update=fields), other)
    assert encodings == [1, 1]
    assert len(list(cache.iterdir())) == 2


def test_a_broken_file_of_the_cache_is_written_again(
    tmp_path: Path, cache: Path, encodings: list[int], tokenizer: PreTrainedTokenizerFast
) -> None:
    spec = StudySpec(dataset=write(tmp_path / "rows.jsonl"))
    expected = prepare(spec, tokenizer).data_hash
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    for broken in (b"", whole[: len(whole) // 2], b"x" * len(whole)):
        file.write_bytes(broken)
        assert prepare(spec, tokenizer).data_hash == expected
        assert file.read_bytes() == whole
    assert encodings == [1] * 4


def test_the_least_recently_used_rows_leave_a_full_cache(
    tmp_path: Path,
    cache: Path,
    encodings: list[int],
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def specs(n: int) -> StudySpec:
        return StudySpec(dataset=write(tmp_path / "rows.jsonl", n=n))

    prepare(specs(40), tokenizer)
    prepare(specs(41), tokenizer)
    prepare(specs(40), tokenizer)
    monkeypatch.setattr(encoded_cache, "MOST_BYTES", 2 * max(file.stat().st_size for file in cache.iterdir()) + 300)
    prepare(specs(42), tokenizer)
    assert len(list(cache.iterdir())) == 2
    prepare(specs(40), tokenizer)
    assert len(encodings) == 3
    prepare(specs(41), tokenizer)
    assert len(encodings) == 4


def test_a_cache_that_cannot_be_written_costs_nothing_else(
    tmp_path: Path, encodings: list[int], tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "MANY_ROWS", 20)
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("LORASCOPE_CACHE", str(tmp_path / "taken"))
    assert len(prepare(StudySpec(dataset=write(tmp_path / "rows.jsonl")), tokenizer).eval) == 3
    assert encodings == [1]

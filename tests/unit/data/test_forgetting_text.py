"""Forgetting text: its windows, their targets and its hash."""

from pathlib import Path

import numpy as np
import pytest

from lorascope.data import forgetting_text as generic
from lorascope.data.forgetting_text import read_forgetting_text
from lorascope.errors import InputError
from lorascope.spec.schema import StudySpec
from support.tiny_models import train_tokenizer


def spec_of(text: object, max_length: int = 1024) -> StudySpec:
    return StudySpec(forgetting_text=str(text), max_length=max_length)


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    """A text whose places can be told apart."""
    path = tmp_path / "numbers.txt"
    path.write_text(" ".join(str(n) for n in range(3000)), encoding="utf-8")
    return path


def test_windows_are_spread_evenly_over_the_forgetting_text(numbers: Path) -> None:
    tokenizer = train_tokenizer(bos=False)
    ids = tokenizer(numbers.read_text(encoding="utf-8"))["input_ids"]
    text = read_forgetting_text(spec_of(numbers, max_length=20), tokenizer)
    assert len(text.windows) == generic.WINDOWS
    starts = [round(i * (len(ids) // 20 - 1) / 31) * 20 for i in range(32)]
    for window, start in zip(text.windows, starts, strict=True):
        assert window.input_ids.tolist() == ids[start : start + 20]
        assert window.target_mask.tolist() == [False] + [True] * 19


def test_windows_begin_with_the_start_token_of_the_tokenizer(numbers: Path) -> None:
    with_start = read_forgetting_text(spec_of(numbers, max_length=20), train_tokenizer(bos=True))
    assert {int(window.input_ids[0]) for window in with_start.windows} == {0}
    assert {window.n_tokens for window in with_start.windows} == {20}
    assert {window.n_targets for window in with_start.windows} == {19}


def test_a_short_text_has_each_window_once(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_text("add two numbers, read a file. " * 60, encoding="utf-8")
    tokenizer = train_tokenizer(bos=False)
    n_tokens = len(tokenizer(path.read_text(encoding="utf-8").strip())["input_ids"])
    length = n_tokens // 9
    text = read_forgetting_text(spec_of(path, max_length=length), tokenizer)
    assert len(text.windows) == n_tokens // length
    tokens = np.concatenate([window.input_ids for window in text.windows]).tolist()
    assert tokens == tokenizer(path.read_text(encoding="utf-8").strip())["input_ids"][: len(tokens)]
    with pytest.raises(InputError, match=f"has {n_tokens} tokens, fewer than 8 windows of 256"):
        read_forgetting_text(spec_of(path), tokenizer)


def test_forgetting_text_hash_covers_the_windows(numbers: Path, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(bos=False)
    one, other = (read_forgetting_text(spec_of(numbers, max_length=length), tokenizer) for length in (20, 21))
    copy = tmp_path / "copy.txt"
    copy.write_bytes(b"\xef\xbb\xbf" + numbers.read_bytes() + b"\n")
    assert read_forgetting_text(spec_of(copy, max_length=20), tokenizer).sha256 == one.sha256
    assert one.sha256 != other.sha256


def test_builtin_forgetting_text_is_prose() -> None:
    text = generic._python_reference()
    paragraphs = text.split("\n\n")
    assert len(text) > 80_000
    assert len(set(paragraphs)) == len(paragraphs)
    assert "Objects are never explicitly destroyed" in text
    assert min(map(len, paragraphs)) > 150
    letters = sum(sign.isalpha() or sign == " " for sign in text) / len(text)
    assert letters > 0.9
    assert "::=" not in text


def test_forgetting_text_none_reads_nothing() -> None:
    assert read_forgetting_text(spec_of("none"), train_tokenizer(bos=False)) is None


def test_a_python_without_the_builtin_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pydoc_data.topics", None)
    with pytest.raises(InputError, match="comes without the text 'builtin:python-reference'"):
        read_forgetting_text(StudySpec(), train_tokenizer(bos=False))

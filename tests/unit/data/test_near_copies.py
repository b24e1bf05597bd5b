"""Leakage: copies of a prompt stay on one side of the split, whatever small things they differ in."""

import json
import unicodedata
from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from lorascope.data import minhash
from lorascope.data.dataset import Example, Splits
from lorascope.data.minhash import SIMILAR
from lorascope.data.prepare import prepare
from lorascope.data.row_keys import normal_form
from lorascope.errors import InputError
from lorascope.message import Message
from lorascope.spec.schema import StudySpec
from support.tiny_models import WriteRows

CHANGES: dict[str, Callable[[str], str]] = {
    "line end": lambda text: text + "\n",
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "CR": lambda text: text.replace("\n", "\r"),
    "Unicode form": lambda text: unicodedata.normalize("NFD", text),
    "compatibility form": lambda text: unicodedata.normalize("NFKD", text).replace("0", "\uff10"),
    "two blanks": lambda text: text.replace(" ", "  "),
    "hard blank": lambda text: text.replace(" ", "\u00a0"),
    "case": str.upper,
    "invisible": lambda text: "\ufeff" + text.replace(" ", " \u200b"),
}
Form = Literal["NFC", "NFD", "NFKC", "NFKD"]
unicode_text = st.text(st.characters(codec="utf-8"), max_size=30)


@given(text=unicode_text, form=st.sampled_from(("NFC", "NFD", "NFKC", "NFKD")))
def test_normal_form_is_one_for_all_forms_of_unicode_and_white_space(text: str, form: Form) -> None:
    made = normal_form(text)
    assert normal_form(made) == made
    assert normal_form(unicodedata.normalize(form, text)) == made
    assert normal_form(text.casefold()) == made
    assert normal_form(f"\r\n{text} \t") == made


def test_normal_form_keeps_prompts_that_differ_apart() -> None:
    prompts = ["add 1 and 2", "add 2 and 1", "add 1 and 22", "add 1, and 2", "add -1 and 2", "더하기", "더하가"]
    assert len(set(map(normal_form, prompts))) == len(prompts)


def sides(splits: Splits, tokenizer: PreTrainedTokenizerFast, key: Callable[[str], str]) -> tuple[set[str], set[str]]:
    def found(rows: Sequence[Example]) -> set[str]:
        return {key(str(tokenizer.decode(row.input_ids, skip_special_tokens=True))) for row in rows}

    return found(splits.train), found(splits.eval)


def number_of(text: str) -> str:
    digits = unicodedata.normalize("NFKC", text).casefold().split("question ")[-1]
    return digits.split()[0].removeprefix("\u200b")[:2]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["text", "pair", "chat"])
def test_near_copies_of_a_prompt_stand_on_one_side(
    write_rows: WriteRows, tokenizer: PreTrainedTokenizerFast, change: str, kind: str
) -> None:
    def row(number: int, alter: Callable[[str], str]) -> dict[str, object]:
        prompt = alter(f"Zoë asks\nfor a café: question {number} ")
        if kind == "text":
            return {"text": prompt}
        if kind == "pair":
            return {"prompt": prompt, "completion": "an answer"}
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": "an answer"}]
        return {"messages": turns}

    rows = [row(number, alter) for alter in (str, CHANGES[change]) for number in range(10, 40)]
    splits = prepare(StudySpec(dataset=write_rows(rows), eval_examples=10), tokenizer)
    train, held = sides(splits, tokenizer, number_of)
    assert (len(splits.train), len(splits.eval), len(held)) == (50, 10, 5)
    assert not train & held
    # white space around a prompt has always been left out of its key
    if not (change == "line end" and kind != "text"):
        assert splits.notes == (Message("rows.near_copies", count=30),)


def test_rows_that_are_equal_within_max_length_are_one_group(
    write_rows: WriteRows, tokenizer: PreTrainedTokenizerFast
) -> None:
    licence = "This file is part of a program that many people wrote. " * 3
    rows = [{"text": f"{number % 12} {licence} file {number}"} for number in range(48)]
    spec = StudySpec(dataset=write_rows(rows), eval_examples=3, max_length=20)
    splits = prepare(spec, tokenizer)
    train, held = sides(splits, tokenizer, lambda text: text.split()[0])
    assert (len(splits.train), len(splits.eval)) == (36, 3)
    assert not train & held
    assert Message("rows.near_copies", count=36) in splits.notes
    assert Message("rows.eval_repeats", count=9) in splits.notes
    whole = prepare(spec.model_copy(update={"max_length": 1024}), tokenizer)
    assert (len(whole.train), len(whole.eval), whole.notes) == (45, 3, ())


def turns(*said: str) -> dict[str, object]:
    roles = {"u": "user", "a": "assistant"}
    return {"messages": [{"role": roles[one[0]], "content": one[1:]} for one in said]}


def test_conversations_that_the_assistant_opens_are_kept_together_by_the_question(
    write_rows: WriteRows, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [turns("aHello, ask me.", f"uquestion {k} ?", f"a{answer}") for answer in ("yes", "no") for k in range(30)]
    splits = prepare(StudySpec(dataset=write_rows(rows), eval_examples=10), tokenizer)
    train, held = sides(splits, tokenizer, number_of)
    assert (len(splits.eval), len(held)) == (10, 5)
    assert not train & held


@pytest.mark.parametrize("fields", [{"eval_examples": 10}, {"split": "train[:30]", "eval_split": "train[30:]"}])
def test_conversations_of_one_opening_are_split_as_whole_ones(
    write_rows: WriteRows, tokenizer: PreTrainedTokenizerFast, fields: dict[str, Any]
) -> None:
    rows = [turns("uHello", "aHi!", f"uquestion {k} ?", f"asum {k}") for k in range(40)]
    splits = prepare(StudySpec(dataset=write_rows(rows), **fields), tokenizer)
    assert (len(splits.train), len(splits.eval)) == (30, 10)
    assert splits.notes == (Message("rows.whole_conversations"),)
    again = [turns("uHello", "aHi!", f"uquestion {k % 20} ?", f"asum {k}") for k in range(40)]
    splits = prepare(StudySpec(dataset=write_rows(again), eval_examples=10), tokenizer)
    train, held = sides(splits, tokenizer, number_of)
    assert (len(held), train & held) == (5, set())


WORDS = ["".join(letters) for letters in permutations("aeklst", 5)]


def similar_pairs(n: int) -> list[dict[str, object]]:
    """Rows of random words, and each of them again with one word changed."""
    random = np.random.default_rng(5)
    rows: list[dict[str, object]] = []
    for number in range(n):
        words = [f"question {number} ", *random.choice(WORDS, 40)]
        for last in ("left", "right"):
            turns = [
                {"role": "system", "content": "You are a helpful assistant that never forgets a word. " * 9},
                {"role": "user", "content": " ".join([*words, last])},
                {"role": "assistant", "content": "yes"},
            ]
            rows.append({"messages": turns})
    return rows


def test_similar_prompts_stand_on_one_side_with_minhash(
    write_rows: WriteRows, tokenizer: PreTrainedTokenizerFast
) -> None:
    spec = StudySpec(dataset=write_rows(similar_pairs(30)), eval_examples=10)
    train, held = sides(prepare(spec, tokenizer), tokenizer, number_of)
    assert train & held
    splits = prepare(spec.model_copy(update={"dedupe": "minhash"}), tokenizer)
    train, held = sides(splits, tokenizer, number_of)
    assert (len(splits.train), len(splits.eval), len(held)) == (50, 10, 5)
    assert not train & held
    assert splits.notes == (Message("rows.similar", count=30, share=SIMILAR),)


def test_training_rows_that_are_similar_to_a_held_out_split_are_dropped(
    write_rows: WriteRows, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = similar_pairs(20)
    path = write_rows([*rows[::2], *rows[1:20:2]])
    spec = StudySpec(dataset=path, split="train[:20]", eval_split="train[20:]", dedupe="minhash")
    splits = prepare(spec, tokenizer)
    train, held = sides(splits, tokenizer, number_of)
    assert (len(splits.train), len(splits.eval)) == (10, 10)
    assert not train & held


def test_minhash_without_its_package_is_refused_before_rows_are_read(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minhash, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="datasketch is not installed") as caught:
        prepare(StudySpec(dataset="/no/such/file.json", dedupe="minhash"), tokenizer)
    assert "lorascope[minhash]" in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("alpaca", {"max_length": 300}, "81461684150060de413f9b2b953c460d4e80d9b6c8d4c727df829973b18013b6"),
        ("texts", {}, "8d6c5b0747d3ba3dc047b1defa00111ed9a5f2a9884731ca389dd42e9db94e94"),
        (
            "alpaca",
            {"split": "train[:40]", "eval_split": "train[40:]", "eval_examples": 9},
            "90b713555bd8e521f6bc8e737acff36cbf8a19c189b486039d9716dd6a0cf5ac",
        ),
    ],
)
def test_split_without_near_copies_is_that_of_earlier_versions(
    tmp_path: Path, name: str, fields: dict[str, Any], expected: str
) -> None:
    """Hashes of the first version: a study that began with it continues."""
    tables = {
        "alpaca": [
            {
                "instruction": f"Add {n} to {n % 7}.",
                "input": "" if n % 3 else f"n = {n}",
                "output": f"It is {n + n % 7}. " * (1 + n % 4),
            }
            for n in range(60)
        ],
        "texts": [{"text": f"line {n % 50} of a text"} for n in range(60)],
    }
    (tmp_path / "rows.json").write_text(json.dumps(tables[name]))
    spec = StudySpec(dataset=str(tmp_path / "rows.json"), split_seed=3, **fields)
    assert prepare(spec, ByT5Tokenizer()).data_hash == expected

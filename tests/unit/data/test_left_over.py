"""Further held-out rows from what a slice of a split leaves over."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from lorascope.data import left_over
from lorascope.data.dataset import Example, Splits
from lorascope.data.prepare import prepare
from lorascope.data.processes import encode_rows
from lorascope.message import Message
from lorascope.spec.schema import StudySpec
from support.tiny_models import WriteRows


def pairs(n: int) -> list[Mapping[str, object]]:
    return [{"prompt": f"add {n}", "completion": f"sum {n}"} for n in range(n)]


def numbers(examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast) -> list[int]:
    return [int(str(tokenizer.decode(row.input_ids)).split()[-1].removesuffix("</s>")) for row in examples]


def study(dataset: str, **fields: Any) -> StudySpec:
    return StudySpec(dataset=dataset, until_decided=True, per_device_train_batch_size=2, **fields)


def shown(splits: Splits) -> list[Message]:
    return [note for note in splits.notes if note.code.startswith("rows.left_over")]


@pytest.mark.parametrize(
    ("split", "own"),
    [
        ("train[:40]", range(40)),
        ("train[:40%]", range(40)),
        ("train[60:]", range(60, 100)),
        ("train[10:50]", range(10, 50)),
        ("train[-40:]", range(60, 100)),
    ],
)
def test_rows_outside_a_slice_are_further_held_out_rows(
    write_rows: WriteRows, tokenizer: PreTrainedTokenizerFast, split: str, own: range
) -> None:
    splits = prepare(study(write_rows(pairs(100)), split=split), tokenizer)
    assert sorted(numbers([*splits.train, *splits.eval], tokenizer)) == list(own)
    assert sorted(numbers(splits.spare, tokenizer)) == sorted(set(range(100)) - set(own))
    assert len(splits.eval) == 4
    assert shown(splits) == [Message("rows.left_over", split=split, size=60, count=60)]


def test_training_keeps_the_rows_that_it_has_in_a_fixed_study(
    write_rows: WriteRows, tokenizer: PreTrainedTokenizerFast
) -> None:
    path = write_rows(pairs(100))
    fixed = prepare(StudySpec(dataset=path, split="train[:40]", per_device_train_batch_size=2), tokenizer)
    splits = prepare(study(path, split="train[:40]"), tokenizer)
    assert numbers(splits.train, tokenizer) == numbers(fixed.train, tokenizer)
    assert numbers(splits.eval, tokenizer) == numbers(fixed.eval, tokenizer)


def test_few_rows_outside_leave_a_pool_of_a_fifth(write_rows: WriteRows, tokenizer: PreTrainedTokenizerFast) -> None:
    splits = prepare(study(write_rows(pairs(102)), split="train[:100]"), tokenizer)
    assert (len(splits.train), len(splits.eval), len(splits.spare)) == (82, 10, 10)
    assert {100, 101} < set(numbers(splits.spare, tokenizer))
    assert set(numbers(splits.spare[-2:], tokenizer)) == {100, 101}


def test_copies_of_the_study_s_rows_are_left_out(write_rows: WriteRows, tokenizer: PreTrainedTokenizerFast) -> None:
    others = [
        {"prompt": "ADD  3", "completion": "sum 100"},  # a near copy of a prompt
        {"prompt": "add 5", "completion": "sum 5"},  # a row again
        {"prompt": "add 200", "completion": "sum 200"},
        {"prompt": "add 200", "completion": "sum 200"},  # counted twice it would feign precision
        {"prompt": "add 200", "completion": "sum 201"},
    ]
    splits = prepare(study(write_rows([*pairs(40), *others]), split="train[:40]"), tokenizer)
    assert sorted(numbers(splits.spare, tokenizer)[-2:]) == [200, 201]
    own = {*numbers(splits.train, tokenizer), *numbers(splits.eval, tokenizer)}
    assert own.isdisjoint(numbers(splits.spare[-2:], tokenizer))
    assert shown(splits) == [
        Message("rows.left_over", split="train[:40]", size=5, count=2),
        Message("rows.left_over_copies", count=3),
    ]


def test_similar_rows_are_left_out_where_the_study_looks_for_them(
    write_rows: WriteRows, tokenizer: PreTrainedTokenizerFast
) -> None:
    pytest.importorskip("datasketch")
    story = "the sum of the numbers that stand in every row of this table is to be found and written down {n}"
    rows = [{"prompt": story.format(n="here"), "completion": "sum 0"}, *pairs(40)[1:]]
    alike = {"prompt": story.format(n="there"), "completion": "sum 50"}
    splits = [
        prepare(study(write_rows([*rows, alike]), split="train[:40]", dedupe=dedupe), tokenizer)
        for dedupe in ("exact", "minhash")
    ]
    assert [50 in numbers(found.spare, tokenizer) for found in splits] == [True, False]


def test_no_more_rows_are_read_than_the_pool_takes(
    write_rows: WriteRows, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def count(encoder: Any, rows: Any, **options: Any) -> Any:
        read.append(len(rows))
        return encode_rows(encoder, rows, **options)

    monkeypatch.setattr(left_over, "encode_rows", count)
    monkeypatch.setattr(left_over, "LARGEST_POOL", 14)
    splits = prepare(study(write_rows(pairs(1000)), split="train[:40]"), tokenizer)
    assert read == [10]
    assert (len(splits.eval), len(splits.spare)) == (4, 10)
    repeated = [*pairs(40), *([{"prompt": "add 1", "completion": "sum 1"}] * 20), *pairs(100)[40:]]
    read.clear()
    splits = prepare(study(write_rows(repeated), split="train[:40]"), tokenizer)
    assert read[:2] == [10, 10]
    assert len(splits.spare) == 10


def test_the_seed_chooses_and_orders_further_rows(write_rows: WriteRows, tokenizer: PreTrainedTokenizerFast) -> None:
    path = write_rows(pairs(100))
    first, again = (prepare(study(path, split="train[:40]"), tokenizer) for _ in range(2))
    other = prepare(study(path, split="train[:40]", split_seed=1), tokenizer)
    assert numbers(first.spare, tokenizer) == numbers(again.spare, tokenizer)
    assert first.data_hash == again.data_hash
    assert numbers(first.spare, tokenizer) != numbers(other.spare, tokenizer)
    assert numbers(first.spare, tokenizer) != sorted(numbers(first.spare, tokenizer))


def test_the_hash_covers_further_rows(write_rows: WriteRows, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = pairs(100)
    before = prepare(study(write_rows(rows), split="train[:40]"), tokenizer).data_hash
    rows[70] = {"prompt": "add 70", "completion": "sum 71"}
    assert prepare(study(write_rows(rows), split="train[:40]"), tokenizer).data_hash != before


def test_rows_outside_that_cannot_be_read_do_not_refuse_a_study(
    write_rows: WriteRows, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [*pairs(40), {"prompt": ["a", "list"], "completion": {"no": "text"}}]
    splits = prepare(study(write_rows(rows), split="train[:40]"), tokenizer)
    assert [note.code for note in shown(splits)] == ["rows.left_over_unusable"]
    assert set(numbers(splits.spare, tokenizer)) < set(range(40))


@pytest.mark.parametrize(
    ("fields", "used"),
    [
        ({"split": "train"}, range(100)),
        ({"split": "train[:100%]"}, range(100)),
        ({"split": "train[:20]+train[30:50]"}, {*range(20), *range(30, 50)}),
        ({"split": "train[:50]", "eval_split": "train[50:70]"}, range(70)),
        ({"split": "train[:50]", "max_rows": 40}, range(50)),
        ({"split": "train[:50]", "until_decided": False}, range(50)),
    ],
)
def test_other_studies_have_no_rows_from_outside(
    write_rows: WriteRows, tokenizer: PreTrainedTokenizerFast, fields: dict[str, Any], used: Collection[int]
) -> None:
    splits = prepare(study(write_rows(pairs(100))).model_copy(update=fields), tokenizer)
    assert shown(splits) == []
    assert set(numbers([*splits.train, *splits.eval, *splits.spare], tokenizer)) <= set(used)

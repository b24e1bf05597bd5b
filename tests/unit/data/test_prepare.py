import copy
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from lorascope.data.dataset import Example
from lorascope.data.prepare import prepare
from lorascope.errors import InputError
from lorascope.message import Message
from lorascope.spec.schema import StudySpec
from support.tiny_models import WriteRows


def pairs(n: int, *, prompt: str = "add {n}", completion: str = "sum {n}") -> list[dict[str, object]]:
    return [{"prompt": prompt.format(n=n), "completion": completion.format(n=n)} for n in range(n)]


def texts(examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast) -> list[str]:
    return [str(tokenizer.decode(example.input_ids)) for example in examples]


def test_rows_are_split_into_training_and_held_out(write_rows: WriteRows, tokenizer: PreTrainedTokenizerFast) -> None:
    splits = prepare(StudySpec(dataset=write_rows(pairs(40))), tokenizer)
    assert (len(splits.train), len(splits.eval), splits.format, splits.notes) == (36, 4, "prompt_completion", ())
    assert sorted(texts([*splits.train, *splits.eval], tokenizer)) == sorted(f"add {n}sum {n}</s>" for n in range(40))
    example = splits.train[0]
    assert example.n_tokens == len(example.input_ids) == len(example.target_mask)
    assert 0 < example.n_targets < example.n_tokens
    assert not example.target_mask[0]


def test_data_hash_covers_tokens_masks_and_split(write_rows: WriteRows, tokenizer: PreTrainedTokenizerFast) -> None:
    path = write_rows(pairs(40))
    specs = [
        StudySpec(dataset=path),
        StudySpec(dataset=path, split_seed=1),
        StudySpec(dataset=path, eval_examples=5),
        StudySpec(dataset=path, completion_only_loss=False),
        StudySpec(dataset=path, max_length=5),
    ]
    hashes = [prepare(spec, tokenizer).data_hash for spec in specs]
    assert len(set(hashes)) == len(specs)
    assert hashes[0] == prepare(specs[0], tokenizer).data_hash
    assert len(hashes[0]) == 64


def test_splits_of_the_published_study(write_rows: WriteRows, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [{"instruction": f"Add {n}.", "input": "", "output": "the sum " * n} for n in range(1, 81)]
    spec = StudySpec(
        dataset=write_rows(rows),
        split="train[:50%]",
        prompt_template="### Question: {instruction}\n ### Answer: ",
        max_length=40,
    )
    splits = prepare(spec, tokenizer)
    assert (splits.format, len(splits.train), len(splits.eval)) == ("template", 36, 4)
    assert max(example.n_tokens for example in splits.train) == 40
    cut = [row for row in rows[:40] if n_tokens(row, tokenizer) > 40]
    assert splits.notes == (
        Message("rows.unread_columns", columns=("input",)),
        Message("rows.truncated", split="train[:50%]", rows=40, tokens=40, count=len(cut)),
    )


def n_tokens(row: Mapping[str, object], tokenizer: PreTrainedTokenizerFast) -> int:
    return len(tokenizer(f"### Question: {row['instruction']}\n ### Answer: {row['output']}")["input_ids"]) + 1


def test_notes_count_dropped_and_truncated_rows(write_rows: WriteRows, tokenizer: PreTrainedTokenizerFast) -> None:
    rows: list[dict[str, object]] = [
        *pairs(20),
        {"prompt": "add 0", "completion": "sum 0"},
        {"prompt": "empty", "completion": None},
        {"prompt": "a prompt that fills every token there is " * 3, "completion": "sum"},
    ]
    splits = prepare(StudySpec(dataset=write_rows(rows), max_length=20), tokenizer)
    assert len(splits.train) + len(splits.eval) == 20 + any(note.code == "rows.train_repeats" for note in splits.notes)
    assert splits.notes[:2] == (
        Message("rows.dropped_empty_answer", split="train", rows=23, count=1),
        Message("rows.cut_before_target", split="train", rows=22, tokens=20, count=1),
    )
    assert len(splits.notes) == 3
    assert splits.notes[2].code in {"rows.train_repeats", "rows.eval_repeats"}


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.content }}\n{% endfor %}",
        # the end stands before the user's next turn only
        "{% for m in messages %}{% if m.role == 'user' %}</s>{% endif %}{{ m.content }}\n{% endfor %}",
    ],
)
def test_conversations_without_an_end_token_are_noted(
    write_rows: WriteRows, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    turns = [{"role": "user", "content": "add"}, {"role": "assistant", "content": "sum#"}]
    rows = [{"messages": [{"role": "user", "content": f"add {n}"}, *turns[1:], *turns[:1]]} for n in range(20)]
    spec = StudySpec(dataset=write_rows(rows))
    monkeypatch.setattr(tokenizer, "chat_template", template)
    noted = Message("rows.no_end", split="train", rows=20, count=20, end="</s>")
    assert noted in prepare(spec, tokenizer).notes
    ends = tokenizer("#", add_special_tokens=False)["input_ids"]
    assert noted not in prepare(spec, tokenizer, end_ids=ends).notes


def test_rows_of_one_prompt_stay_together(write_rows: WriteRows, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [{"prompt": f"{n % 5}" + " " * (n % 2), "completion": f"sum {n}"} for n in range(30)]
    splits = prepare(StudySpec(dataset=write_rows(rows), eval_examples=8), tokenizer)
    assert (len(splits.train), len(splits.eval)) == (24, 6)
    held = {text[0] for text in texts(splits.eval, tokenizer)}
    assert held.isdisjoint(text[0] for text in texts(splits.train, tokenizer))
    assert splits.notes == (Message("rows.fewer_held_out", asked=8, count=6),)


def test_training_rows_with_a_held_out_prompt_are_dropped(
    write_rows: WriteRows, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [*pairs(20), *pairs(5, completion="other {n}"), *pairs(1, completion="other {n}")]
    spec = StudySpec(dataset=write_rows(rows), split="train[:20]", eval_split="train[20:]")
    splits = prepare(spec, tokenizer)
    assert texts(splits.train, tokenizer) == [f"add {n}sum {n}</s>" for n in range(5, 20)]
    assert texts(splits.eval, tokenizer) == [f"add {n}other {n}</s>" for n in range(5)]
    assert splits.notes == (
        Message("rows.shared_prompt", count=5),
        Message("rows.eval_repeats", count=1),
    )
    few = prepare(spec.model_copy(update={"eval_examples": 2}), tokenizer)
    assert (len(few.train), len(few.eval)) == (18, 2)


def test_chats_and_plain_text_have_their_masks(write_rows: WriteRows, bos_tokenizer: PreTrainedTokenizerFast) -> None:
    talk = [
        {"messages": [{"role": "user", "content": f"add {n}"}, {"role": "assistant", "content": f"sum {n}"}]}
        for n in range(20)
    ]
    splits = prepare(StudySpec(dataset=write_rows(talk)), bos_tokenizer)
    example = splits.train[0]
    assert str(bos_tokenizer.decode(example.input_ids[example.target_mask])).startswith("sum")
    assert example.input_ids.tolist().count(bos_tokenizer.eos_token_id) == 2
    assert bos_tokenizer.bos_token_id not in example.input_ids
    splits = prepare(StudySpec(dataset=write_rows([{"text": f"sum {n}"} for n in range(20)])), bos_tokenizer)
    assert splits.train[0].target_mask.tolist() == [False] + [True] * (splits.train[0].n_tokens - 1)
    assert splits.train[0].input_ids[0] == bos_tokenizer.bos_token_id


@pytest.mark.parametrize(
    ("rows", "fields", "said", "remedy"),
    [
        (pairs(40), {"eval_split": "train"}, "eval_split 'train' is the split", "another split"),
        (pairs(40), {"eval_split": "test"}, 'Unknown split "test"', "train (40 rows)"),
        (pairs(40), {"eval_split": "train[:9]", "eval_examples": 10}, "and 9 to hold out (at least 10)", "lower"),
        (pairs(40), {"eval_split": "train[:1]"}, "and 1 to hold out (at least 2)", "eval_split"),
        (pairs(40), {"eval_split": "train[:100%]"}, "; not usable: 40 with the prompt of a held-out row", "more rows"),
        (pairs(40), {"eval_examples": 33}, "7 to train on (a batch takes 8) and 33 to hold", "lower eval_examples"),
        (pairs(8), {}, "too few usable rows: 6 to train on (a batch takes 8) and 2 to hold out", "more rows"),
        (pairs(8) + pairs(3, completion=" "), {}, "(at least 2); not usable: 3 with a blank answer", "more rows"),
        (pairs(8) + pairs(3, prompt="p" * 2000), {}, "; not usable: 3 whose completion begins behind", "more rows"),
        (pairs(40), {"per_device_train_batch_size": 40}, "36 to train on (a batch takes 40)", "per_device_train_batch"),
        (pairs(40, prompt="same"), {}, "every prompt has more than 4 rows", "'text'"),
        (
            pairs(40, completion=" "),
            {},
            "none of the 40 rows of split 'train' can be used: 40 with",
            "prompt, completion",
        ),
        (pairs(40), {"max_length": 2}, "max_length 2 leaves no target in any of the 40 rows", "token"),
        (pairs(40), {"dataset_format": "text"}, "needs the column 'text'", "prompt, completion"),
        ([{"messages": [{"role": "user", "content": "x"}]}] * 20, {}, "20 without a turn of the", "messages"),
        ([{"text": ["a"]}] * 20, {}, "row 1, column 'text' holds a list", "text in every row"),
    ],
)
def test_unusable_rows_are_refused(
    write_rows: WriteRows,
    tokenizer: PreTrainedTokenizerFast,
    rows: list[dict[str, object]],
    fields: dict[str, Any],
    said: str,
    remedy: str,
) -> None:
    with pytest.raises(InputError) as caught:
        prepare(StudySpec(dataset=write_rows(rows), **fields), tokenizer)
    assert said in caught.value.problem
    assert remedy in caught.value.remedy


def test_the_remedy_for_max_length_is_enough(write_rows: WriteRows, tokenizer: PreTrainedTokenizerFast) -> None:
    path = write_rows(pairs(40, prompt="a longer prompt {n}: "))
    spec = StudySpec(dataset=path, max_length=2, per_device_train_batch_size=1, eval_examples=2)
    with pytest.raises(InputError) as caught:
        prepare(spec, tokenizer)
    enough = int(caught.value.remedy.split()[-1])
    assert prepare(spec.model_copy(update={"max_length": enough}), tokenizer).train[0].n_tokens == enough
    with pytest.raises(InputError, match="leaves no target"):
        prepare(spec.model_copy(update={"max_length": enough - 1}), tokenizer)


def test_a_tokenizer_without_an_end_token_is_refused(write_rows: WriteRows, tokenizer: PreTrainedTokenizerFast) -> None:
    endless = copy.deepcopy(tokenizer)
    endless.eos_token = None
    with pytest.raises(InputError, match="has no end token"):
        prepare(StudySpec(dataset=write_rows(pairs(40))), endless)

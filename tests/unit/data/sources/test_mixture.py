"""Several data sets, their shares, and rows that are streamed."""

import json
import math
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from lorascope.data.prepare import prepare
from lorascope.data.sources.load import stream_rows
from lorascope.data.sources.mixture import load_data_sets, shares
from lorascope.errors import InputError
from lorascope.message import Message
from lorascope.spec.load import load_spec
from lorascope.spec.schema import StudySpec


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


@pytest.fixture
def several(tmp_path: Path) -> tuple[str, ...]:
    """Three data sets of three formats, with 60, 30 and 10 rows."""
    chats = [
        {"messages": [{"role": "user", "content": f"chat {n}"}, {"role": "assistant", "content": f"yes {n}"}]}
        for n in range(30)
    ]
    return (
        write(tmp_path / "a.jsonl", [{"prompt": f"pair {n}", "completion": f"sum {n}"} for n in range(60)]),
        write(tmp_path / "b.jsonl", chats),
        write(tmp_path / "c.jsonl", [{"text": f"text {n}"} for n in range(10)]),
    )


def test_data_sets_are_used_together_each_in_its_own_format(
    several: tuple[str, ...], bos_tokenizer: PreTrainedTokenizerFast
) -> None:
    splits = prepare(StudySpec(dataset=several), bos_tokenizer)
    texts = [str(bos_tokenizer.decode(row.input_ids)) for row in (*splits.train, *splits.eval)]
    assert (len(splits.train), len(splits.eval), splits.format) == (90, 10, "prompt_completion, messages, text")
    for word, count in (("pair", 60), ("chat", 30), ("text", 10)):
        assert sum(word in text for text in texts) == count
    assert all(text.startswith("<s>") != ("chat" in text) for text in texts)
    assert splits.notes == tuple(
        Message("rows.part", name=name, count=size, size=size) for name, size in zip(several, (60, 30, 10), strict=True)
    )


def test_mix_takes_rows_by_seed_in_the_given_shares(several: tuple[str, ...]) -> None:
    def taken(**fields: Any) -> list[list[str]]:
        spec = StudySpec(dataset=several[:2], **fields)
        return [[json.dumps(row) for row in rows] for rows in load_data_sets(spec, "train", mixed=True)]

    mixed = taken(mix=(1, 3))
    assert [len(part) for part in mixed] == [10, 30]
    assert mixed == taken(mix=(0.25, 0.75))
    assert mixed[0] != taken(mix=(1, 3), split_seed=1)[0]
    assert [len(part) for part in taken(mix=(1, 3), max_rows=20)] == [5, 15]
    assert [len(part) for part in taken(max_rows=45)] == [30, 15]
    whole = taken()
    assert set(mixed[0]) < set(whole[0])
    spec = StudySpec(dataset=several[:2], mix=(1, 3))
    assert [len(rows) for rows in load_data_sets(spec, "train[:50%]", mixed=False)] == [30, 15]


@given(
    sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=5), data=st.data(), most=st.none() | st.integers(10, 2000)
)
def test_shares_keep_the_weights_and_the_limit(sizes: list[int], data: st.DataObject, most: int | None) -> None:
    weights = data.draw(st.none() | st.lists(st.floats(0.1, 9), min_size=len(sizes), max_size=len(sizes)))
    taken = shares(sizes, weights, most)
    assert all(1 <= count <= size for count, size in zip(taken, sizes, strict=True))
    assert most is None or sum(taken) <= most + len(sizes)
    parts = [weight / sum(weights or sizes) for weight in weights or sizes]
    total = min(most or math.inf, *(size / part for size, part in zip(sizes, parts, strict=True)), math.inf)
    assert all(abs(count - total * part) <= 1 for count, part in zip(taken, parts, strict=True))


def test_errors_name_the_data_set_of_several(tmp_path: Path, several: tuple[str, ...], tokenizer: Any) -> None:
    odd = write(tmp_path / "odd.jsonl", [{"id": 1}])
    with pytest.raises(InputError, match=r"odd.jsonl': the columns id fit no known format"):
        prepare(StudySpec(dataset=(several[0], odd)), tokenizer)
    blank = write(tmp_path / "blank.jsonl", [{"text": " "}] * 3)
    with pytest.raises(InputError, match=r"blank.jsonl \(train\)' can be used: 3 without text"):
        prepare(StudySpec(dataset=(several[0], blank)), tokenizer)


def test_each_data_set_may_have_its_own_split_and_configuration(
    tmp_path: Path, several: tuple[str, ...], tokenizer: PreTrainedTokenizerFast
) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    write(folder / "one.jsonl", [{"text": f"one {n}"} for n in range(20)])
    write(folder / "two.jsonl", [{"text": f"two {n}"} for n in range(20)])
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: a\n  data_files: one.jsonl\n- config_name: b\n"
        "  data_files:\n  - split: late\n    path: two.jsonl\n---\n"
    )
    names = (several[2], str(folder))
    spec = StudySpec(dataset=names, split=("train[:5]", "late[:50%]"), dataset_config=("default", "b"))
    loaded = load_data_sets(spec, spec.split, mixed=True)
    assert [[row["text"] for row in rows] for rows in loaded] == [
        [f"text {n}" for n in range(5)], [f"two {n}" for n in range(10)]
    ]  # fmt: skip
    parts = ("train[:8]", "late[:10]"), ("train[8:]", "late[10:14]")
    held = StudySpec(dataset=names, split=parts[0], eval_split=parts[1], dataset_config=("default", "b"))
    splits = prepare(held, tokenizer)
    assert (len(splits.train), len(splits.eval)) == (18, 6)
    with pytest.raises(InputError, match=r"eval_split 'train\[:8\]' is the split that is trained on"):
        prepare(held.model_copy(update={"eval_split": ("train[:8]", "late[15:]")}), tokenizer)
    with pytest.raises(InputError, match="has several configurations") as caught:
        load_data_sets(StudySpec(dataset=str(folder)), "train", mixed=True)
    assert "--dataset-config: 'a', 'b'" in caught.value.remedy
    with pytest.raises(InputError, match="has no configuration 'c'"):
        load_data_sets(StudySpec(dataset=str(folder), dataset_config="c"), "train", mixed=True)
    with pytest.raises(InputError, match=r"dataset_config is 'b', and .* has no configurations"):
        load_data_sets(StudySpec(dataset=names, dataset_config="b"), "train", mixed=True)


def test_a_prompt_of_two_data_sets_stands_on_one_side(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    names = tuple(
        write(tmp_path / f"{end}.jsonl", [{"prompt": f"add {n:02} ", "completion": end} for n in range(30)])
        for end in ("one", "two")
    )
    splits = prepare(StudySpec(dataset=names, eval_examples=10), tokenizer)
    held, train = ({str(tokenizer.decode(row.input_ids))[4:6] for row in part} for part in (splits.eval, splits.train))
    assert (len(held), held & train) == (5, set())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of data files, of which the second is no JSON."""
    (tmp_path / "files").mkdir()
    write(tmp_path / "files" / "train-0.jsonl", [{"text": f"row {n}", "call": {"a": n}} for n in range(3000)])
    (tmp_path / "files" / "train-1.jsonl").write_text("broken")
    return tmp_path / "files"


def test_streaming_reads_the_first_rows_alone(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    assert list(stream_rows(str(folder), "train", 30)) == [{"text": f"row {n}", "call": {"a": n}} for n in range(30)]
    with pytest.raises(InputError, match="cannot be loaded"):
        stream_rows(str(folder), "train", 3001)
    splits = prepare(StudySpec(dataset=str(folder), streaming=True, max_rows=40), tokenizer)
    assert (len(splits.train), len(splits.eval)) == (36, 4)
    with pytest.raises(InputError, match="cannot be loaded"):
        prepare(StudySpec(dataset=str(folder)), tokenizer)


def test_streaming_gives_equal_shares_of_several_data_sets(folder: Path, several: tuple[str, ...]) -> None:
    def sizes(**fields: Any) -> list[int]:
        spec = StudySpec(dataset=(str(folder), several[0]), streaming=True, max_rows=40, **fields)
        return [len(rows) for rows in load_data_sets(spec, "train", mixed=True)]

    assert sizes() == [20, 20]
    assert sizes(mix=(3, 1)) == [30, 10]


def test_streaming_leaves_null_keys_out_and_takes_saved_folders_and_files(tmp_path: Path) -> None:
    table = [{"call": {"b": 1}}, {"call": {"a": 2}}]
    (tmp_path / "parquet").mkdir()
    Dataset.from_list(table).to_parquet(tmp_path / "parquet" / "train.parquet")
    datasets.disable_progress_bars()
    Dataset.from_list(table).save_to_disk(tmp_path / "saved")
    datasets.enable_progress_bars()
    write(tmp_path / "rows.jsonl", table)
    for name in ("parquet", "saved", "rows.jsonl"):
        assert list(stream_rows(str(tmp_path / name), "train", 9)) == table
        assert list(stream_rows(str(tmp_path / name), "train", 1)) == table[:1]


@pytest.mark.parametrize(
    ("name", "split", "said"),
    [
        ("files", "train[:10]", "'train[:10]' is a part"),
        ("files", "test", "split 'test' cannot be taken"),
        ("nowhere.json", "train", "does not exist"),
    ],
)
def test_what_cannot_be_streamed_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, split: str, said: str
) -> None:
    monkeypatch.chdir(folder.parent)
    with pytest.raises(InputError) as caught:
        stream_rows(name, split, 5)
    assert said in caught.value.problem


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"mix": [0.5, 0.5]}, "mix has 2 values, and the number of data sets is 1"),
        ({"dataset": ["a", "b"], "mix": [1]}, "mix has 1 value, and the number of data sets is 2"),
        ({"dataset": ["a", "b"], "mix": [1, 0]}, "mix"),
        ({"dataset": []}, "dataset"),
        ({"dataset": [{"path": "a"}]}, "split, dataset_config and mix are lists beside them"),
        ({"dataset": ["a", "b"], "split": ["train"]}, "split has 1 value, and the number of data sets is 2"),
        ({"eval_split": ["test", "test"]}, "eval_split has 2 values, and the number of data sets is 1"),
        ({"dataset_config": 1}, "dataset_config is 1: neither text nor a list of texts"),
        ({"streaming": True}, "streaming needs max_rows"),
        ({"max_rows": 0}, "max_rows"),
    ],
)
def test_fields_of_data_sets_that_contradict_each_other_are_refused(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    (tmp_path / "study.yaml").write_text(json.dumps(fields))
    with pytest.raises(InputError) as caught:
        load_spec(tmp_path / "study.yaml", {})
    assert said in str(caught.value)

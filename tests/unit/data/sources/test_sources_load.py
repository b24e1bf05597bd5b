import logging
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pytest
from datasets import Dataset, DatasetDict, IterableDataset
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

from lorascope.data.sources.load import load_rows, stream_rows
from lorascope.errors import InputError
from lorascope.message import Message
from lorascope.text.say import say


@pytest.fixture
def saved(tmp_path: Path) -> str:
    """A saved folder with two splits; row n holds its number."""
    parts = {name: Dataset.from_dict({"text": [f"{name} {n}" for n in range(size)]}) for name, size in SIZES.items()}
    datasets.disable_progress_bars()
    DatasetDict(parts).save_to_disk(tmp_path / "saved")
    datasets.enable_progress_bars()
    return str(tmp_path / "saved")


SIZES = {"train": 200, "test": 10}


@pytest.mark.parametrize(
    ("split", "first", "size"),
    [
        ("train", "train 0", 200),
        ("train[:50%]", "train 0", 100),
        ("train[10:20]", "train 10", 10),
        ("train[-3:]", "train 197", 3),
        ("train[:256]", "train 0", 200),
        ("test", "test 0", 10),
        ("test+train[:1%]", "test 0", 12),
    ],
)
def test_split_syntax_on_saved_data_sets(saved: str, split: str, first: str, size: int) -> None:
    rows = load_rows(saved, split)
    assert (next(iter(rows))["text"], len(rows)) == (first, size)
    assert len(list(rows)) == size


def test_the_split_syntax_works_on_files(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text\n" + "".join(f"{n}\n" for n in range(20)))
    rows = load_rows(str(tmp_path / "rows.csv"), "train[25%:50%]")
    assert [row["text"] for row in rows] == ["5", "6", "7", "8", "9"]


def test_a_single_saved_data_set_is_its_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Dataset.from_dict({"text": ["a"]}, split="validation").save_to_disk(tmp_path / "saved")
    capsys.readouterr()
    assert len(load_rows(str(tmp_path / "saved"), "validation")) == 1
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ("eval", 'Unknown split "eval"'),
        ("train[:50%", "Unrecognized instruction format"),
        ("train[::2]", "Unrecognized instruction format"),
        ("train[:200%]", "Percent slice boundaries"),
        ("train[5:5]", "has no rows"),
        ("train[9:5]", "has no rows"),
        ("train[200:]", "has no rows"),
        ("train[500:600]", "has no rows"),
    ],
)
def test_an_unknown_split_is_refused(saved: str, split: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        load_rows(saved, split)
    assert said in caught.value.problem
    assert split in caught.value.problem
    assert "no rows" in said or "train (200 rows), test (10 rows)" in caught.value.remedy


@pytest.mark.parametrize("name", ["rows.json", "./rows", "/no/such/file.csv", "a/b/c", "rows one"])
def test_a_missing_path_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="does not exist") as caught:
        load_rows(name, "train")
    assert name in caught.value.problem


def test_an_unknown_built_in_data_set_is_refused() -> None:
    with pytest.raises(InputError, match="builtin:nothing") as caught:
        load_rows("builtin:nothing", "train")
    assert "builtin:python-stdlib" in caught.value.remedy


def test_incomplete_saved_data_sets_are_refused(tmp_path: Path, saved: str) -> None:
    with pytest.raises(InputError, match="holds no complete saved data set"):
        load_rows(str(tmp_path), "train")
    next((tmp_path / "saved" / "train").glob("*.arrow")).write_bytes(b"cut")
    with pytest.raises(InputError, match="cannot be read"):
        load_rows(saved, "train")


def test_data_files_of_a_folder_that_belong_to_no_split_are_noted(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text('{"text": "x"}\n')
    assert load_rows(str(tmp_path), "train").notes == ()
    (tmp_path / "c.csv").write_text("text\ny\n")
    left_out = Message("rows.files_left_out", folder=str(tmp_path), count=1, files=("c.csv",))
    for rows in (load_rows(str(tmp_path), "train"), stream_rows(str(tmp_path), "train", 9)):
        assert (len(rows), rows.notes) == (2, (left_out,))
    assert "left out: 1 (c.csv)." in say(left_out)


class Hub:
    """Stands for the hub and the loader of ``datasets``."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, answer: Exception | None = None, loading: Exception | None = None
    ) -> None:
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)  # the tests themselves run offline
        self.answer, self.loading = answer, loading
        self.asked: list[tuple[str, str, bool]] = []
        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", self.dataset_info)
        monkeypatch.setattr(datasets, "load_dataset", self.load_dataset)

    def dataset_info(self, *args: Any, **kwargs: Any) -> None:
        if self.answer is not None:
            raise self.answer

    def load_dataset(self, path: str, *, name: str | None, split: str, streaming: bool) -> Dataset | IterableDataset:
        logging.getLogger("datasets").warning("something about the download")
        self.asked.append((path if name is None else f"{path}/{name}", split, datasets.config.HF_HUB_OFFLINE))
        if self.loading is not None:
            raise self.loading
        rows = Dataset.from_dict({"text": ["a", "b", "c"][: 3 if streaming else 1]})
        return rows.to_iterable_dataset() if streaming else rows


def test_a_hub_id_is_loaded_with_its_split_silently(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub(monkeypatch)
    assert len(load_rows("sahil2801/CodeAlpaca-20k", "train[:50%]")) == 1
    assert hub.asked == [("sahil2801/CodeAlpaca-20k", "train[:50%]", False)]
    load_rows("openai/gsm8k", "train", "main")
    assert hub.asked[1] == ("openai/gsm8k/main", "train", False)
    assert capsys.readouterr() == ("", "")
    assert caplog.records == []


def test_a_hub_id_is_streamed_up_to_the_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch)
    assert list(stream_rows("sahil2801/CodeAlpaca-20k", "train", 2)) == [{"text": "a"}, {"text": "b"}]
    hub.answer = HTTPError("no route")
    with pytest.raises(InputError, match="hub cannot be reached"):
        stream_rows("sahil2801/CodeAlpaca-20k", "train", 2)
    assert len(hub.asked) == 1


def test_without_the_hub_the_cache_of_datasets_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch, answer=HTTPError("no route"))
    assert len(load_rows("lucasmccabe-lmi/CodeAlpaca-20k", "train")) == 1
    assert hub.asked[0][2] is True
    assert datasets.config.HF_HUB_OFFLINE is False


@pytest.mark.parametrize(
    ("loading", "said", "remedy"),
    [
        (ConnectionError("no route"), "cannot be reached", "--dataset rows.json"),
        (HTTPError("proxy"), "cannot be reached", "--dataset rows.json"),
        (DatasetNotFoundError("Dataset 'a/b' doesn't exist"), "doesn't exist", "check the id"),
        (
            ValueError("Unknown split \"eval\". Should be one of ['train']."),
            "Should be one of ['train']",
            "name a split",
        ),
        (RuntimeError("Dataset scripts are no longer supported"), "no longer supported", "--dataset rows.json"),
        (OSError("disk full"), "disk full", "--dataset rows.json"),
    ],
)
def test_hub_errors_are_explained(
    monkeypatch: pytest.MonkeyPatch, loading: Exception | None, said: str, remedy: str
) -> None:
    Hub(monkeypatch, loading=loading)
    with pytest.raises(InputError, match="a/b") as caught:
        load_rows("a/b", "train")
    assert said in caught.value.problem
    assert remedy in caught.value.remedy


def test_settings_of_the_libraries_are_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    Hub(monkeypatch)
    level = logging.getLogger("datasets").level
    load_rows("a/b", "train")
    assert logging.getLogger("datasets").level == level
    assert not datasets.are_progress_bars_disabled()

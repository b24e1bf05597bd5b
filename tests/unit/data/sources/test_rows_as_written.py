"""A row is what its own text in the file says, whatever other rows hold."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from lorascope.data.sources import json_files
from lorascope.data.sources.files import read_file
from lorascope.data.sources.load import load_rows
from lorascope.data.sources.rows import joined, rows_of_list

cells = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab{[,]}"\\', max_size=3), inner, max_size=3),
    max_leaves=8,
)
tables = st.lists(st.dictionaries(st.text("abc", min_size=1, max_size=2), cells, max_size=3), min_size=1, max_size=6)


@given(table=tables, indent=st.none() | st.integers(0, 2), plain=st.booleans(), chunk=st.integers(1, 40))
def test_json_rows_are_what_json_holds_for_every_size_of_chunk(
    tmp_path_factory: pytest.TempPathFactory, table: list[dict[str, Any]], indent: int | None, plain: bool, chunk: int
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    (folder / "rows.json").write_text(json.dumps(table, indent=indent, ensure_ascii=plain), encoding="utf-8")
    lines = "\n".join(json.dumps(row, ensure_ascii=plain) for row in table)
    (folder / "rows.jsonl").write_text(lines, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_files, "_CHUNK", chunk)
        if not any(table):
            return
        for name in ("rows.json", "rows.jsonl"):
            rows = read_file(folder / name)
            assert repr(list(rows)) == repr(table)  # repr tells 1, 1.0 and True apart
            assert repr(list(rows.select(np.arange(0, len(table), 2)))) == repr(table[::2])
            assert set(rows.columns) == {column for row in table for column in row}


CALLS: list[dict[str, Any]] = [
    {"call": {"city": "town 0"}},
    {"call": {"b": 1, "a": 2}},
    {"call": {"city": None, "day": 0}},
    {"call": {}},
    {"call": {"city": 1.5, "list": [1, None]}},
    {"call": {"city": ["x"]}},
]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_json_row_has_no_keys_nulls_or_kinds_of_other_rows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_text(json.dumps(CALLS) if suffix == ".json" else "\n".join(map(json.dumps, CALLS)))
    assert list(map(repr, read_file(path))) == list(map(repr, CALLS))


def test_table_row_lacks_the_keys_that_are_null_in_it(tmp_path: Path) -> None:
    table = [{"call": [{"b": 1, "to": {"x": 2}}], "note": None}, {"call": [{"a": 2, "to": {"y": 3}}], "note": "n"}]
    Dataset.from_list(table).to_parquet(tmp_path / "rows.parquet")
    datasets.disable_progress_bars()
    Dataset.from_list(table).save_to_disk(tmp_path / "saved")
    datasets.enable_progress_bars()
    for name in ("rows.parquet", "saved"):
        assert list(load_rows(str(tmp_path / name), "train")) == table


def test_json_column_of_a_table_keeps_its_nulls(tmp_path: Path) -> None:
    table = [{"call": {"city": None, "day": 0}}, {"call": {"city": 1}}, {"call": {"city": "x"}}, {"call": {}}]
    Dataset.from_list(table, on_mixed_types="use_json").to_parquet(tmp_path / "rows.parquet")
    assert list(read_file(tmp_path / "rows.parquet")) == table


@pytest.mark.parametrize("text", ["1", "1.0", "007", "1e5", "NaN", "null", "None", "", "true", " x ", "N/A"])
def test_csv_cell_is_its_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"prompt,completion\n{text},x\nabc,{text}\n")
    assert list(read_file(path)) == [{"prompt": text, "completion": "x"}, {"prompt": "abc", "completion": text}]


def test_fingerprint_follows_content_and_choice(tmp_path: Path) -> None:
    def write(name: str, n: int) -> str:
        path = tmp_path / name
        table = [{"text": f"row {row}"} for row in range(n)]
        if path.suffix == ".parquet":
            Dataset.from_list(table).to_parquet(path)
        else:
            path.write_text("\n".join(map(json.dumps, table)))
        return str(path)

    for suffix in (".jsonl", ".parquet"):
        whole, copy, more = (
            load_rows(write(f"{name}{suffix}", n), "train") for name, n in (("a", 30), ("b", 30), ("c", 31))
        )
        assert whole.fingerprint() == copy.fingerprint() != more.fingerprint()
        half = whole.select(np.arange(15))
        assert half.fingerprint() == copy.select(np.arange(15)).fingerprint() != whole.fingerprint()


def test_joined_rows_keep_their_order_and_can_be_chosen_across_parts() -> None:
    parts = [rows_of_list("a", [{"n": n} for n in range(start, start + 3)]) for start in (0, 3, 6)]
    both = joined([parts[1], parts[0].select(np.array([0, 2])), parts[2]])
    assert [row["n"] for row in both] == [3, 4, 5, 0, 2, 6, 7, 8]
    assert [row["n"] for row in both.select(np.array([0, 3, 5, 7]))] == [3, 0, 6, 8]


def test_sample_skips_nulls_and_fills_every_column() -> None:
    rows = rows_of_list("a", [{"a": None}, {"a": "x", "b": None}, {"c": 1}])
    assert rows.sample() == {"a": "x", "b": None, "c": 1}

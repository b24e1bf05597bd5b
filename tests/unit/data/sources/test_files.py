import csv
import json
from pathlib import Path

import pyarrow as pa
import pytest
from datasets import Dataset

from lorascope.data.sources.files import read_file
from lorascope.errors import InputError

ROWS = [{"prompt": 'a, "b"\nc', "completion": "é"}, {"prompt": "d", "completion": ""}]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.json", json.dumps(ROWS)),
        ("rows.json", json.dumps({"version": "1", "data": ROWS}, indent=2)),
        ("rows.json", "\ufeff" + json.dumps(ROWS, ensure_ascii=False)),
        ("rows.json", "\n".join(json.dumps(row) for row in ROWS)),
        ("rows.jsonl", "\n\n".join(json.dumps(row) for row in ROWS) + "\n"),
        ("ROWS.JSONL", "\r\n".join(json.dumps(row) for row in ROWS)),
        ("rows.csv", 'prompt,completion\n"a, ""b""\nc",é\n\nd,\n'),
    ],
)
def test_file_formats_give_equal_rows(tmp_path: Path, name: str, content: str | bytes) -> None:
    assert list(read_file(write(tmp_path / name, content))) == ROWS


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst"])
@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.csv", "rows.tsv", "ROWS.JSONL"])
def test_compressed_files_of_text_are_read_and_truncated_ones_refused(tmp_path: Path, name: str, suffix: str) -> None:
    rows = [{"text": f"{n} é" * 50} for n in range(300)]
    lines = ["text", *(row["text"] for row in rows)] if name.endswith("sv") else map(json.dumps, rows)
    content = (json.dumps(rows) if name.endswith(".json") else "\n".join(lines)).encode("utf-8-sig")
    path = tmp_path / (name + suffix)
    codec = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}[suffix]
    with pa.CompressedOutputStream(str(path), codec) as file:
        file.write(content)
    assert list(read_file(path)) == rows
    write(path, path.read_bytes()[:-40])
    with pytest.raises(InputError, match="cannot be read"):
        list(read_file(path))
    write(path, b"not compressed")
    with pytest.raises(InputError, match="cannot be read"):
        list(read_file(path))


def test_parquet_gives_the_rows(tmp_path: Path) -> None:
    Dataset.from_list(ROWS).to_parquet(tmp_path / "rows.parquet")
    assert list(read_file(tmp_path / "rows.parquet")) == ROWS


def test_line_separators_inside_a_string_do_not_end_a_line(tmp_path: Path) -> None:
    row = {"text": "one\u2028two\x85three\x0bfour"}
    path = write(tmp_path / "rows.jsonl", json.dumps(row, ensure_ascii=False).replace("\\u000b", "\\u000b"))
    assert list(read_file(path)) == [row]
    path = write(tmp_path / "rows.csv", "text\none\u2028two\n")
    assert list(read_file(path)) == [{"text": "one\u2028two"}]


def test_columns_that_only_later_rows_have_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.json", '[{"text": "a"}, {"text": "b", "id": 1}]')
    rows = read_file(path)
    assert (rows.columns, list(rows)) == (("text", "id"), [{"text": "a"}, {"text": "b", "id": 1}])


def test_csv_reads_long_cells_and_restores_the_limit(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    assert list(read_file(write(tmp_path / "rows.csv", "text\n" + "x" * 200_000))) == [{"text": "x" * 200_000}]
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.json", b"", "is empty (0 bytes)"),
        ("rows.json", " \n", "nothing but white space"),
        ("rows.json", "[]", "holds no rows"),
        ("rows.csv", "text\n", "holds no rows"),
        ("rows.txt", "x", "ends in '.txt'"),
        ("rows", "x", "ends in ''"),
        ("rows.json", b'[{"text": "a"},\n {"text": "\xff"}]', "byte 0xff at offset 27, line 2"),
        ("rows.jsonl", '{"text": "a"}'.encode("utf-16"), "is not UTF-8: byte 0xff at offset 0, line 1"),
        ("rows.json", '[{"text": "a"}, {"text": "b', "ends in the middle"),
        ("rows.json", '[{"text": "a"},', "ends in the middle"),
        ("rows.json", '[{"text": "a"}\n {"text": "b"}]', "is not JSON: Expecting ',' delimiter at line 2, column 2"),
        ("rows.json", "hello", "is not JSON: Expecting value at line 1"),
        ("rows.json", '{"text": "a"}', "holds a JSON object that has no list of rows"),
        ("rows.json", '{"a": [], "b": []}', "holds a JSON object"),
        ("rows.json", "3", "holds a JSON number"),
        ("rows.json", '[{"text": "a"}, "b"]', "row 2 is a string, not an object"),
        ("rows.json", "[{}, {}]", "without any column"),
        ("rows.json", "[" * 100_000, "nested too deeply"),
        ("rows.csv", "w\0E,w\n1,2\n", "NUL character in the name of a column"),
        ("rows.json", '[{"text": "\\ud800"}]', "row 1, column 'text' holds half a character"),
        (
            "rows.jsonl",
            '{"text": "a"}\n{"text": "b"',
            "ends in the middle of a value: Expecting ',' delimiter at line 2",
        ),
        ("rows.jsonl", '{"text": "a"}\n{"text" "b"}\n{"text": "c"}', "is not JSON: Expecting ':' delimiter at line 2"),
        ("rows.jsonl", '{"text": "a"}\n[1]', "object 2 is a list"),
        ("rows.csv", 'text\n"open', "is not CSV at line 2"),
        ("rows.csv", "a,b\n1,2\n1,2,3\n", "line 3: 3 cells under 2 columns"),
        ("rows.csv", "a,a\n1,2\n", "has the columns ['a', 'a']"),
        ("rows.parquet", "PAR1 and then nothing", "not a readable Parquet file"),
    ],
)
def test_broken_files_are_refused_with_their_position(
    tmp_path: Path, name: str, content: str | bytes, said: str
) -> None:
    with pytest.raises(InputError) as caught:
        read_file(write(tmp_path / name, content))
    assert said in caught.value.problem
    assert name in caught.value.problem


def test_a_truncated_parquet_file_is_refused(tmp_path: Path) -> None:
    Dataset.from_list(ROWS * 50).to_parquet(tmp_path / "rows.parquet")
    whole = (tmp_path / "rows.parquet").read_bytes()
    with pytest.raises(InputError, match="not a readable Parquet file"):
        read_file(write(tmp_path / "cut.parquet", whole[: len(whole) // 2]))

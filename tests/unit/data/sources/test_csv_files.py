"""CSV as spreadsheets and pandas write it."""

from pathlib import Path

import pytest

from lorascope.data.sources.files import read_file
from lorascope.errors import InputError
from lorascope.message import Message

ROWS = [{"prompt": f"add {k}, please", "completion": f" the sum is {k}"} for k in range(3)]


def write(folder: Path, text: str) -> Path:
    path = folder / "rows.csv"
    path.write_text(text, encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize("start", ["", "sep={sign}\r\n", "\ufeff"])
@pytest.mark.parametrize("sign", [";", "\t"])
def test_csv_separated_by_other_signs_is_read_with_a_note(tmp_path: Path, sign: str, start: str) -> None:
    lines = [f"prompt{sign}completion", *(f"{row['prompt']}{sign}{row['completion']}" for row in ROWS)]
    rows = read_file(write(tmp_path, start.format(sign=sign) + "\r\n".join(lines)))
    assert list(rows) == ROWS
    assert rows.notes == (Message("rows.separator", file="rows.csv", separator=sign),)


def test_csv_with_commas_keeps_semicolons_in_cells_and_names(tmp_path: Path) -> None:
    rows = read_file(write(tmp_path, '"a;b",c\n1;2;3,x\n'))
    assert (list(rows), rows.notes) == ([{"a;b": "1;2;3", "c": "x"}], ())


def test_csv_names_lose_the_blanks_around_them(tmp_path: Path) -> None:
    rows = read_file(write(tmp_path, "prompt, completion\nq, a\n"))
    assert list(rows) == [{"prompt": "q", "completion": " a"}]
    assert rows.notes == (Message("rows.blanks_in_header", file="rows.csv", names=("' completion'",)),)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (",prompt,completion\n0,q,a\n1,q,b\n", 1),
        ("prompt,completion,\nq,a,\nq,b, \n", 1),
        ("prompt,completion,,,\nq,a,,,\nq,b,,,\n", 3),
        ("prompt,,completion\nq,,a\nq,,b\n", 1),
    ],
)
def test_csv_columns_without_a_name_are_left_out_with_a_note(tmp_path: Path, text: str, count: int) -> None:
    rows = read_file(write(tmp_path, text))
    assert list(rows) == [{"prompt": "q", "completion": "a"}, {"prompt": "q", "completion": "b"}]
    assert rows.notes == (Message("rows.unnamed_columns", file="rows.csv", count=count),)


@pytest.mark.parametrize(
    ("text", "said", "remedy"),
    [
        ("prompt,completion,\nq,a,\nq,a, and more\n", "line 3: ' and more' stands in column 3", "name that column"),
        ("prompt;completion\nq;a;b\n", "line 2: 3 cells under 2 columns", "cells with ';'"),
        ("sep=;\nprompt;completion\nq;a;b\n", "line 3: 3 cells under 2 columns", "cells with ';'"),
        ("a, a\n1,2\n", "has the columns ['a', ' a']", "differently"),
        (",,\n1,2,3\n", "has the columns ['', '', '']", "name each column"),
        ("\n\n", "nothing but white space", "rows in it"),
    ],
)
def test_csv_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, said: str, remedy: str) -> None:
    with pytest.raises(InputError) as caught:
        read_file(write(tmp_path, text))
    assert said in caught.value.problem
    assert remedy in caught.value.remedy


def test_csv_that_is_not_utf8_is_refused_with_the_place_of_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"text\n" + b"a\n" * 50_000 + b"\xe9\n")
    with pytest.raises(InputError, match="byte 0xe9 at offset 100005, line 50002"):
        read_file(path)

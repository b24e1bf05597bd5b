"""Rows that were lost: from 5 % of a split on they are a warning."""

import pytest

from lorascope.analysis.dropped_rows import REASONS, dropped_rows
from lorascope.data.encoded import CUT
from lorascope.data.formats.rendering import Drop
from lorascope.message import Message
from lorascope.text.say import say


def cut(count: int, rows: int, split: str = "train") -> Message:
    return Message("rows.cut_before_target", split=split, rows=rows, count=count, tokens=64)


def blank(count: int, rows: int, split: str = "train") -> Message:
    return Message("rows.dropped_blank", split=split, rows=rows, count=count)


def test_lost_rows_are_named_with_their_reason() -> None:
    (warning,) = dropped_rows((Message("rows.whole_conversations"), cut(5398, 6681)))
    assert say(warning) == "Dropped 5,398 of 6,681 examples of train: no answer left within max_length 64."


def test_reasons_of_a_split_add_up() -> None:
    (warning,) = dropped_rows((blank(40, 1000), cut(30, 960)))
    assert say(warning) == "Dropped 70 of 1,000 examples of train: no text, no answer left within max_length 64."


@pytest.mark.parametrize(("count", "warned"), [(50, 0), (51, 1)])
def test_few_lost_rows_are_no_warning(count: int, warned: int) -> None:
    assert len(dropped_rows((cut(count, 1000),))) == warned


def test_every_split_is_judged_by_itself() -> None:
    assert [warning.values["split"] for warning in dropped_rows((cut(4, 100), blank(9, 100, "test")))] == ["test"]
    assert dropped_rows((Message("rows.truncated", split="train", rows=10, count=9, tokens=64),)) == ()


def test_every_way_to_lose_a_row_has_a_reason() -> None:
    assert {*REASONS} == {CUT, *map(str, Drop)}

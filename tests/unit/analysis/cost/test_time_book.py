from collections.abc import Callable
from pathlib import Path

from lorascope.analysis import summarize
from lorascope.records import ActivityRecord
from lorascope.store import StudyStore
from lorascope.text.tables.costs import time_table


def activity(name: str, predicted: float | None, spent: float) -> ActivityRecord:
    return ActivityRecord(name=name, predicted_seconds=predicted, spent_seconds=spent, seconds_left=0.0)


def test_time_book_has_every_activity_that_took_time_in_the_order_of_a_run(make_study: Callable[..., Path]) -> None:
    folder = make_study()
    assert summarize(folder).time_book == ()
    assert time_table(summarize(folder)).rows == ()
    with StudyStore.create(folder / "study.db") as store:
        store.put_all(
            [
                activity("truncation", 9.0, 12.0), activity("training", 60.0, 75.0), activity("report", 8.0, 0.0),
                activity("preparation", None, 13.0),
            ]
        )  # fmt: skip
    summary = summarize(folder)
    assert [(one.name, one.predicted_seconds, one.spent_seconds) for one in summary.time_book] == [
        ("preparation", None, 13.0),
        ("training", 60.0, 75.0),
        ("truncation", 9.0, 12.0),
    ]
    assert time_table(summary).rows == (
        ("loading and checks", "–", "13.0 s", "13%"),
        ("training", "1 min 00 s", "1 min 15 s", "75%"),
        ("truncated adapters", "9.00 s", "12.0 s", "12%"),
        ("all together", "–", "1 min 40 s", "100%"),
    )

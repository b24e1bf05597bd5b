"""A sequential study says that its intervals hold over all looks, what each look led to, and what limits it."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from lorascope.analysis import StudySummary
from lorascope.analysis.summarize import summarize_data
from lorascope.analysis.verdict.next_look import next_look
from lorascope.cli.notes import show_notes
from lorascope.cli.result import show_result
from lorascope.message import Message
from lorascope.report.sections import report_sections
from lorascope.text.looks import look_table
from lorascope.text.say import say
from lorascope.text.tables.overview import overview_table
from lorascope.text.write_up import paragraphs
from made_up_studies import studies
from sequential_simulation import MOST_ROWS, PRICES, split_rows
from verdict_simulation import truth_of


@pytest.fixture(scope="module")
def summary() -> StudySummary:
    """Two looks; then there is nothing to add, and the verdict is open."""
    truth = replace(truth_of(0.0, 8, MOST_ROWS), rates=(3e-4,), seed_of_rank=0.004)
    data = split_rows(next(studies(truth, 1, 5))).data
    first = next_look(data, rows=MOST_ROWS, prices=PRICES)
    assert first.next in ("rows", "seed")
    data = replace(data, looks=(first,))
    last = replace(next_look(data, rows=MOST_ROWS, prices=PRICES, seconds_left=0.0), next="exhausted", next_seconds=0.0)
    return summarize_data(replace(data, looks=(first, last)))


def printed(summary: StudySummary, folder: Path, *, notes: bool) -> str:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=False)
    if notes:
        show_notes(console, summary)
    else:
        show_result(console, summary, folder)
    return " ".join(out.getvalue().split())


def test_intervals_hold_over_all_looks(summary: StudySummary, tmp_path: Path) -> None:
    said = "95% intervals hold over all looks (2)."
    assert said in overview_table(summary).note
    assert said in " ".join(paragraphs(summary))
    assert "hold over all looks at the data (2)." in say(summary.verdict.text)
    screen = printed(summary, tmp_path, notes=False)
    assert f"on {summary.looks[-1].rows:,} held-out examples" in screen
    assert "95 % over 2 looks" in screen


def test_the_verdict_names_the_limit_and_what_it_takes(summary: StudySummary) -> None:
    text = say(summary.verdict.text)
    last, remedy = summary.looks[-1], summary.verdict.remedy
    limit = f"The study has all held-out rows ({last.rows:,}) and all seeds ({len(last.seeds)}) that it may have."
    assert limit in text
    assert remedy is not None
    assert f"{limit} {say(remedy.text)} That takes " in text


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (Message("limit.takes_seeds", count=2, seconds=840.0), "That takes 2 more seeds, about 14 min."),
        (Message("limit.takes_seeds", count=1, seconds=42.0), "That takes 1 more seed, about 40 s."),
        (
            Message("limit.takes_rows", count=1900, seconds=30.0),
            "That takes 1,900 more held-out rows, about 30 s: give more rows, or a smaller slice in split.",
        ),
        (
            Message("limit.time", seconds=600.0),
            "Its time is used up: the next rows or seed would take about 10 min.",
        ),
    ],
)
def test_sentences_of_limits(message: Message, text: str) -> None:
    assert say(message) == text


def test_each_look_is_a_row_of_the_report_and_a_line_of_the_notes(summary: StudySummary, tmp_path: Path) -> None:
    table = look_table(summary)
    assert [row[0] for row in table.rows] == ["1", "2"]
    assert table.rows[-1][-1] == "still open, and there are no further rows or seeds."
    sections = {section.name: section for section in report_sections(summary, (), (), tmp_path)}
    assert sections["looks"].folded
    assert sections["looks"].blocks[0].table == table
    notes = printed(summary, tmp_path, notes=True)
    for look in summary.looks:
        assert f"- Look {look.look}, {len(look.seeds)} seeds and {look.rows} held-out rows: still open" in notes

"""Looks of a sequential study in its summary: what each took, and what keeps the study from a verdict."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from lorascope.analysis.looks import look_sections
from lorascope.analysis.study_data import StudyData
from lorascope.analysis.summarize import summarize_data
from lorascope.analysis.summary import StudySummary
from lorascope.analysis.verdict.next_look import measured_prices, next_look
from lorascope.message import Message
from lorascope.records import LookRecord
from made_up_studies import studies
from sequential_simulation import HELD, MOST_ROWS, PRICES, sequential, split_rows
from verdict_simulation import truth_of


def data_of(effect: float, **changes: Any) -> StudyData:
    truth = replace(truth_of(effect, 8, MOST_ROWS), rates=(3e-4,), **changes)
    return split_rows(next(studies(truth, 1, 5))).data


def messages(found: object) -> Iterator[Message]:
    """Yield messages and those inside them."""
    if isinstance(found, Message):
        yield found
        found = tuple(found.values.values())
    for one in found if isinstance(found, tuple) else ():
        yield from messages(one)


def codes(found: object) -> list[str]:
    return [message.code for message in messages(found)]


def ended(data: StudyData, **changes: Any) -> StudySummary:
    """Summarise a study whose first look is its last."""
    look = replace(next_look(data, rows=MOST_ROWS, prices=PRICES, seconds_left=0.0), **changes)
    return summarize_data(replace(data, looks=(look,)))


@pytest.fixture(scope="module")
def open_data() -> StudyData:
    return data_of(0.0, seed_of_rank=0.004)


def test_looks_have_what_they_compared_and_what_they_spent(open_data: StudyData) -> None:
    summary, looks = sequential(split_rows(next(studies(truth_of(0.0, 8, MOST_ROWS), 1, 5))))
    assert [found.model_dump(include={"look", "ranks", "seeds", "rows", "next"}) for found in summary.looks] == [
        {"look": look.look, "ranks": look.ranks, "seeds": look.seeds, "rows": look.rows, "next": look.next}
        for look in looks
    ]
    assert [found.spent for found in summary.looks] == pytest.approx([look.information**3 for look in looks])
    assert summary.compared_rows == looks[-1].rows
    assert summary.verdict.seeds == len(looks[-1].seeds)
    assert set(summary.study.seeds) >= set(looks[-1].seeds)


def test_a_look_took_what_it_added(open_data: StudyData) -> None:
    """Each rank has evaluations of one second at 3 steps, the base's counted once, and one on further rows."""
    first = replace(next_look(open_data, rows=MOST_ROWS, prices=PRICES), next="rows", next_value=2 * HELD)
    second = replace(first, look=2, rows=2 * HELD, next="seed", next_value=3)
    third = replace(second, look=3, seeds=(0, 1, 2, 3), next="exhausted")
    sections = look_sections(replace(open_data, looks=(first, second, third)))
    evaluated = [1 + 2 * 3 * 3, 3 * 3, 1 + 2 * 3 + 3]
    assert [found.seconds for found in sections] == pytest.approx(evaluated)


@pytest.mark.parametrize(
    ("end", "limit"), [("exhausted", "limit.exhausted"), ("budget", "limit.time"), ("steps", "limit.steps")]
)
def test_a_study_that_ends_open_names_its_limit_once(open_data: StudyData, end: Any, limit: str) -> None:
    summary = ended(open_data, next=end)
    assert summary.verdict.kind == "too_short"
    said = codes(summary.verdict.text)
    assert said.count(limit) == 1
    assert not {"verdict.more_seeds", "verdict.more_rows"} & set(said)
    assert all(caution.kind != "underpowered" for caution in summary.cautions)
    remedies = [code for code in said if code.startswith("caution.underpowered")]
    assert len(remedies) == (end != "steps")


def test_a_remedy_is_priced_by_what_the_study_took(open_data: StudyData) -> None:
    look = replace(next_look(open_data, rows=MOST_ROWS, prices=PRICES, seconds_left=0.0), next="exhausted")
    summary = summarize_data(replace(open_data, looks=(look,)))
    remedy = summary.verdict.remedy
    assert remedy is not None
    assert remedy.text.code == "caution.underpowered_seeds"
    more = remedy.text.values["more_seeds"]
    assert isinstance(more, int)
    prices = measured_prices(replace(open_data, looks=(look,)))
    assert remedy.seconds == pytest.approx((more - 3) * len(look.next_ranks) * prices.trial * prices.token_seconds)
    takes = Message("limit.takes_seeds", count=more - 3, seconds=remedy.seconds)
    assert takes in messages(summary.verdict.text)


def test_a_study_on_its_way_says_that_it_goes_on(open_data: StudyData) -> None:
    look: LookRecord = next_look(open_data, rows=MOST_ROWS, prices=PRICES)
    summary = summarize_data(replace(open_data, looks=(look,), goes_on=True))
    assert look.next in ("rows", "seed")
    assert "limit.goes_on" in codes(summary.verdict.text)
    assert not summary.study.complete


def test_before_the_first_look_there_is_no_answer(open_data: StudyData) -> None:
    summary = summarize_data(replace(open_data, looks=(), goes_on=True))
    assert (summary.answer.status, summary.answer.text.code) == ("too_early", "answer.unfinished")


def test_the_rows_of_a_look_count_for_a_verdict(open_data: StudyData) -> None:
    """Training was evaluated on fewer rows than a verdict needs; the looks have more."""
    few = replace(open_data, resolved=replace(open_data.resolved, eval_examples=9) if open_data.resolved else None)
    summary = ended(few, rows=HELD)
    assert "verdict.few" not in codes(summary.verdict.text)
    assert all(caution.kind != "few_eval_examples" for caution in summary.cautions)
    assert all(caution.kind != "one_seed" for caution in summary.cautions)

"""Cautions about what a study could have shown, each where it holds and where it does not."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lorascope.analysis import load_study, summarize, summarize_data
from lorascope.analysis.summary import StudySummary
from lorascope.records import Environment
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore

MakeStudy = Callable[..., Path]


def caution(summary: StudySummary, kind: str) -> str | None:
    return next((found.text for found in summary.cautions if found.kind == kind), None)


def test_intervals_too_wide_for_the_tolerance_are_said_with_the_rows_they_would_take(make_study: MakeStudy) -> None:
    spec = StudySpec(ranks=(8, 128))
    summary = summarize(make_study(spec=spec, floors={8: 1.2, 128: 1.2}, noise=0.2))
    text = caution(summary, "underpowered")
    assert text is not None
    (part,) = [part for part in summary.ranks if part.excess_loss != 0]
    assert part.excess_loss_ci95 is not None
    half = (part.excess_loss_ci95[1] - part.excess_loss_ci95[0]) / 2
    assert f"rank {part.rank} reaches {half:.4f} to either side" in text
    rows = math.ceil(200 * (half / 0.005) ** 2)
    assert f"{rows:,} held-out rows." in text
    assert "seeds in place" not in text


def test_with_several_seeds_the_seeds_it_would_take_are_said_too(make_study: MakeStudy) -> None:
    spec = StudySpec(ranks=(8, 128), seeds=(0, 1))
    text = caution(summarize(make_study(spec=spec, floors={8: 1.2, 128: 1.2}, noise=0.2)), "underpowered")
    assert text is not None
    assert "seeds in place of 2" in text


@pytest.mark.parametrize(("floors", "noise"), [({8: 1.3, 128: 1.2}, 0.05), ({8: 1.2, 128: 1.2}, 0.001)])
def test_a_rank_that_is_decided_needs_no_more_rows(make_study: MakeStudy, floors: dict, noise: float) -> None:
    assert (
        caution(summarize(make_study(spec=StudySpec(ranks=(8, 128)), floors=floors, noise=noise)), "underpowered")
        is None
    )


@pytest.mark.parametrize(("noise", "said"), [(0.006, False), (0.04, True)])
def test_fewer_rows_than_a_verdict_needs_are_not_said_to_do(make_study: MakeStudy, noise: float, said: bool) -> None:
    folder = make_study(spec=StudySpec(ranks=(8, 128)), floors={8: 1.2, 128: 1.2}, noise=noise, n_eval=8)
    summary = summarize(folder)
    low, high = next(part.excess_loss_ci95 for part in summary.ranks if part.excess_loss != 0) or (0.0, 0.0)
    assert (8 * ((high - low) / 2 / 0.005) ** 2 >= 20) == said
    assert low <= 0.005 < high
    assert (high - low) / 2 > 0.005
    assert (caution(summary, "underpowered") is not None) == said


def test_rows_that_hold_less_than_the_smallest_adapter_are_said(make_study: MakeStudy) -> None:
    text = caution(summarize(make_study()), "below_capacity")
    assert text is not None
    # 400,000 parameters x 2 bits; 40,000 target tokens at 2.334 nats = 3.37 bits each
    for shown in (
        "rank 8 can hold 800.0 k bits",
        "40.0 k different target tokens",
        "at most 134.7 k",
        "237.6 k target",
    ):
        assert shown in text


@pytest.mark.parametrize(("tokens", "said"), [(237_000, True), (238_000, False)])
def test_the_capacity_is_reached_where_the_text_says(make_study: MakeStudy, tokens: int, said: bool) -> None:
    data = load_study(make_study())
    resolved = replace(data.resolved, train_target_tokens=tokens)
    assert (caution(summarize_data(replace(data, resolved=resolved)), "below_capacity") is not None) is said


def test_a_second_pass_over_the_same_rows_holds_nothing_new(make_study: MakeStudy) -> None:
    data = load_study(make_study())
    half_an_epoch = replace(data.resolved, train_target_tokens=300_000, train_examples=2 * data.resolved.train_examples)
    assert caution(summarize_data(replace(data, resolved=half_an_epoch)), "below_capacity") is None
    quarter = replace(data.resolved, train_target_tokens=300_000, train_examples=4 * data.resolved.train_examples)
    two = replace(data.resolved, train_target_tokens=237_000, train_examples=data.resolved.train_examples // 4)
    for resolved in (quarter, two):
        assert caution(summarize_data(replace(data, resolved=resolved)), "below_capacity") is not None


def test_a_study_continued_elsewhere_is_said_with_what_changed(make_study: MakeStudy) -> None:
    folder = make_study()
    assert caution(summarize(folder), "environment_changed") is None
    with StudyStore.create(folder / "study.db") as store:
        (first,) = store.read(Environment)
        store.put(first)
    assert caution(summarize(folder), "environment_changed") is None
    with StudyStore.create(folder / "study.db") as store:
        store.put(replace(first, cpu="Another processor", packages={**first.packages, "torch": "2.7.0", "peft": "0.1"}))
    text = caution(summarize(folder), "environment_changed")
    assert text is not None
    assert "torch 2.6.0, later 2.7.0" in text
    assert "peft absent, later 0.1" in text
    assert "processor A processor, later Another processor" in text
    assert "transformers" not in text

"""Cautions about statistical power and capacity."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from lorascope.analysis import load_study, summarize, summarize_data
from lorascope.analysis.summary import StudySummary
from lorascope.analysis.verdict.power import MOST_SEEDS
from lorascope.message import Message
from lorascope.records import Environment
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from made_up_studies import Truth, studies

MakeStudy = Callable[..., Path]


approx: Any = pytest.approx


def caution(summary: StudySummary, kind: str) -> Message | None:
    return next((found.text[0] for found in summary.cautions if found.kind == kind), None)


def test_underpowered_study_names_the_rows_needed(make_study: MakeStudy) -> None:
    summary = summarize(make_study(spec=StudySpec(ranks=(8, 128)), floors={8: 1.2, 128: 1.2}, noise=0.08))
    found = caution(summary, "underpowered")
    assert found is not None
    (part,) = [part for part in summary.ranks if part.excess_loss != 0]
    assert part.excess_loss_ci95 is not None
    half = (part.excess_loss_ci95[1] - part.excess_loss_ci95[0]) / 2
    rows = math.ceil(200 * (half / 0.005) ** 2)
    assert found == Message("caution.underpowered_rows", rank=part.rank, half=approx(half), tolerance=0.005, rows=rows)


@pytest.mark.parametrize(("noise", "code"), [(0.5, "underpowered_very_far"), (0.08, "underpowered_rows")])
def test_underpowered_study_of_one_seed_asks_for_rows_or_tolerance(
    make_study: MakeStudy, noise: float, code: str
) -> None:
    found = caution(
        summarize(make_study(spec=StudySpec(ranks=(8, 128)), floors={8: 1.2, 128: 1.2}, noise=noise)), "underpowered"
    )
    assert found is not None
    assert found.code == f"caution.{code}"


def test_underpowered_study_names_the_seeds_needed() -> None:
    """With 2 seeds the t quantile is 12.7 or less; it falls as seeds come, so that few are enough where seeds decide.

    Studies made with so many seeds then have intervals about as wide as was foretold.
    """
    truth = Truth(floors={8: 1.0, 64: 1.0}, seeds=2, rows=256, row_of_rank=0.001, row_of_trial=0.001)
    needed = []
    for study in studies(truth, 40, 9):
        found = caution(summarize_data(study.data), "underpowered")
        if found is not None and found.code == "caution.underpowered_seeds":
            needed.append(found.values["more_seeds"])
    assert needed
    assert all(isinstance(seeds, int) and 2 < seeds <= MOST_SEEDS for seeds in needed)
    typical = int(median(seeds for seeds in needed if isinstance(seeds, int)))
    widths = [
        high - low
        for study in studies(replace(truth, seeds=typical), 40, 9)
        for part in summarize_data(study.data).ranks
        if part.excess_loss and part.excess_loss_ci95
        for low, high in [part.excess_loss_ci95]
    ]
    assert median(widths) / 2 < 2 * 0.005


@pytest.mark.parametrize(("floors", "noise"), [({8: 1.3, 128: 1.2}, 0.05), ({8: 1.2, 128: 1.2}, 0.001)])
def test_decided_rank_is_not_underpowered(make_study: MakeStudy, floors: dict, noise: float) -> None:
    assert (
        caution(summarize(make_study(spec=StudySpec(ranks=(8, 128)), floors=floors, noise=noise)), "underpowered")
        is None
    )


@pytest.mark.parametrize(("noise", "said"), [(0.006, False), (0.04, True)])
def test_underpowered_caution_names_at_least_the_minimum_rows(make_study: MakeStudy, noise: float, said: bool) -> None:
    folder = make_study(spec=StudySpec(ranks=(8, 128)), floors={8: 1.2, 128: 1.2}, noise=noise, n_eval=8)
    summary = summarize(folder)
    low, high = next(part.excess_loss_ci95 for part in summary.ranks if part.excess_loss != 0) or (0.0, 0.0)
    assert (8 * ((high - low) / 2 / 0.005) ** 2 >= 20) == said
    assert low <= 0.005 < high
    assert (high - low) / 2 > 0.005
    assert (caution(summary, "underpowered") is not None) == said


def test_capacity_above_the_information_in_the_rows_is_a_caution(make_study: MakeStudy) -> None:
    found = caution(summarize(make_study()), "below_capacity")
    assert found is not None
    # 400,000 parameters x 2 bits; 40,000 target tokens at 2.334 nats = 3.37 bits each
    numbers = {name: found.values[name] for name in ("rank", "capacity", "tokens", "held", "enough")}
    expected = {"rank": 8, "capacity": 800_000, "tokens": 40_000, "held": 134_700, "enough": 237_600}
    assert numbers == pytest.approx(expected, rel=5e-4)


@pytest.mark.parametrize(("tokens", "said"), [(237_000, True), (238_000, False)])
def test_capacity_caution_threshold(make_study: MakeStudy, tokens: int, said: bool) -> None:
    data = load_study(make_study())
    resolved = replace(data.resolved, train_target_tokens=tokens)
    assert (caution(summarize_data(replace(data, resolved=resolved)), "below_capacity") is not None) is said


def test_capacity_ignores_repeated_epochs(make_study: MakeStudy) -> None:
    data = load_study(make_study())
    half_an_epoch = replace(data.resolved, train_target_tokens=300_000, train_examples=2 * data.resolved.train_examples)
    assert caution(summarize_data(replace(data, resolved=half_an_epoch)), "below_capacity") is None
    quarter = replace(data.resolved, train_target_tokens=300_000, train_examples=4 * data.resolved.train_examples)
    two = replace(data.resolved, train_target_tokens=237_000, train_examples=data.resolved.train_examples // 4)
    for resolved in (quarter, two):
        assert caution(summarize_data(replace(data, resolved=resolved)), "below_capacity") is not None


def test_changed_environment_is_a_caution(make_study: MakeStudy) -> None:
    folder = make_study()
    assert caution(summarize(folder), "environment_changed") is None
    with StudyStore.create(folder / "study.db") as store:
        (first,) = store.read(Environment)
        store.put(first)
    assert caution(summarize(folder), "environment_changed") is None
    with StudyStore.create(folder / "study.db") as store:
        store.put(replace(first, cpu="Another processor", packages={**first.packages, "torch": "2.7.0", "peft": "0.1"}))
    processor = Message("caution.processor")
    assert caution(summarize(folder), "environment_changed") == Message(
        "caution.environment_changed",
        changes=(
            Message("caution.changed", name="torch", before="2.6.0", after="2.7.0"),
            Message("caution.changed", name="peft", before=Message("caution.absent"), after="0.1"),
            Message("caution.changed", name=processor, before="A processor", after="Another processor"),
        ),
    )


@pytest.mark.parametrize(("first", "added"), [((0,), False), ((0, 1), True), ((0, 1, 2), False)])
def test_seeds_that_were_added_to_several_are_a_caution(
    make_study: MakeStudy, first: tuple[int, ...], added: bool
) -> None:
    folder = make_study(spec=StudySpec(ranks=(8, 128), seeds=(0, 1, 2)), floors={8: 1.3, 128: 1.2})
    data = load_study(folder)
    start = replace(data.environments[0], seeds=first)
    found = caution(summarize_data(replace(data, environments=(start, *data.environments))), "seeds_added")
    assert found == (Message("caution.seeds_added", first=len(first), seeds=3) if added else None)

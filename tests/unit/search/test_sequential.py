"""What a sequential study buys next: a pure function of prices and intervals."""

from dataclasses import replace
from typing import Any

import pytest

from lorascope.records import LookRecord
from lorascope.search.sequential import (
    MOST_SEEDS,
    Purchase,
    best_purchase,
    first_seeds,
    goes_on,
    pending_rows,
    seed_rounds,
    sequential_seeds,
)
from lorascope.spec.schema import StudySpec

SPEC = StudySpec(ranks=(8, 64), until_decided=True)
LOOK = LookRecord(
    look=1, ranks=(8, 64), lora_alphas=(16.0, 16.0), learning_rates=(3e-4, 3e-4), seeds=(0, 1, 2), rows=256,
    information=0.4, next="rows", next_ranks=(8, 64), next_value=512, next_seconds=1.0,
)  # fmt: skip


def changed(**changes: Any) -> LookRecord:
    return replace(LOOK, **changes)


def test_the_purchase_that_narrows_most_for_its_cost_is_best() -> None:
    rows = Purchase(kind="rows", value=512, half_width=0.9, cost=1.0)
    seed = Purchase(kind="seed", value=3, half_width=0.5, cost=10.0)
    assert best_purchase([rows, seed], 1.0) == rows
    assert best_purchase([rows, Purchase(kind="seed", value=3, half_width=0.5, cost=6.0)], 1.0) != rows
    assert best_purchase([], 1.0) is None


@pytest.mark.parametrize(("seeds", "wanted"), [((0,), (0, 1, 2)), ((5, 1), (5, 1, 0)), ((0, 1, 2, 3), (0, 1, 2, 3))])
def test_seeds_before_the_first_look(seeds: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    spec = SPEC.model_copy(update={"seeds": seeds})
    assert first_seeds(spec) == wanted
    assert len(sequential_seeds(spec)) == len(set(sequential_seeds(spec))) == MOST_SEEDS
    assert first_seeds(spec.model_copy(update={"until_decided": False})) == seeds


def test_more_seeds_than_the_most_are_all_trained() -> None:
    seeds = tuple(range(10))
    assert sequential_seeds(SPEC.model_copy(update={"seeds": seeds})) == seeds


def test_a_look_that_asks_for_a_seed_makes_a_round_of_the_ranks_in_question() -> None:
    asked = changed(next="seed", next_value=3, next_ranks=(64,))
    assert [[trial.trial_id for trial in trials] for trials in seed_rounds(SPEC, [LOOK, asked])] == [["r64-s3"]]


def test_rows_are_pending_until_each_adapter_has_them() -> None:
    finished = [f"r{rank}{seed}" for rank in (8, 64) for seed in ("", "-s1", "-s2")]
    pending = pending_rows(SPEC, LOOK, 256, {}, finished)
    assert [(trial.trial_id, first) for trial, first in pending] == [(name, 256) for name in finished]
    assert pending_rows(SPEC, changed(next_ranks=(8,)), 256, {}, finished[:2]) == pending[:2]
    asked = changed(next="seed", next_value=3, next_ranks=(8,), rows=512)
    names = [trial.trial_id for trial, _ in pending_rows(SPEC, asked, 256, {}, ["r8-s3"])]
    assert names == ["r8-s3"]


@pytest.mark.parametrize("kind", ["rows", "seed", "decided", "steps", "exhausted", "budget"])
def test_a_study_goes_on_after_rows_and_seeds_only(kind: str) -> None:
    assert goes_on([changed(next=kind)]) is (kind in ("rows", "seed"))
    assert goes_on([])

"""Sets of target modules compared at ranks that were chosen on the same rows."""

from collections.abc import Mapping
from itertools import permutations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lorascope.analysis.estimates.paired import LEVEL, SeedRows, Uncertain, differences
from lorascope.analysis.target_sets import choose_set, compare_ranks
from lorascope.records import Arm

STUDIES, ROWS, NOISE, TOLERANCE = 300, 60, 0.04, 0.005
MOST = LEVEL + 2 * (LEVEL * (1 - LEVEL) / STUDIES) ** 0.5
"""The share of wrong claims that chance allows at most, two standard errors included."""


def summaries_of(ranks: Mapping[str, tuple[int, ...]]) -> Any:
    """Sets whose ranks have parameters too different for a comparison at equal size."""
    return {
        name: SimpleNamespace(
            ranks=[SimpleNamespace(rank=rank, trainable_parameters=100**place * rank) for rank in own]
        )
        for place, (name, own) in enumerate(ranks.items(), start=1)
    }


def simulate(
    ranks: Mapping[str, tuple[int, ...]], worse: Mapping[str, float], random: np.random.Generator
) -> tuple[dict[Arm, SeedRows], dict[tuple[Arm, Arm], Uncertain]]:
    """Two seeds on the same rows; all ranks of a set have one loss."""
    tokens = np.full(ROWS, 10.0)
    rows = {
        (name, rank): SeedRows(
            nats=10 * (3 + worse[name] + random.normal(0, NOISE, (1, ROWS)) + random.normal(0, NOISE, (2, ROWS)) / 4),
            target_tokens=tokens,
        )
        for name, own in ranks.items()
        for rank in own
    }
    arms = list(rows)
    found = {(arms[i], arms[j]): one for (i, j), one in differences(list(rows.values())).items()}
    return rows, found | {(b, a): one.turned() for (a, b), one in found.items()}


def lowest_and_highest(rows: Mapping[Arm, SeedRows]) -> list[Arm]:
    """The choice that exaggerates most: the lowest loss of one set, the highest of the other."""
    return [
        min((arm for arm in rows if arm[0] == "a"), key=lambda arm: rows[arm].loss),
        max((arm for arm in rows if arm[0] == "b"), key=lambda arm: rows[arm].loss),
    ]


def test_sets_of_equal_loss_are_seldom_shown_to_differ_however_their_ranks_are_chosen() -> None:
    ranks, random = {"a": (2, 4, 8, 16), "b": (2, 4, 8, 16)}, np.random.default_rng(0)
    shown = missed = 0
    for _ in range(STUDIES):
        rows, pairs = simulate(ranks, {"a": 0.0, "b": 0.0}, random)
        (found,) = compare_ranks(summaries_of(ranks), pairs, lowest_and_highest(rows))
        low, high = found.difference_ci95
        shown += found.p <= LEVEL
        missed += not low <= 0 <= high
    assert shown / STUDIES <= MOST
    assert missed / STUDIES <= MOST


def test_a_set_worse_by_the_tolerance_is_seldom_called_adequate_for_its_luckiest_rank() -> None:
    ranks, random = {"a": (2, 4, 8, 16), "b": (2,)}, np.random.default_rng(1)
    called = 0
    for _ in range(STUDIES):
        rows, pairs = simulate(ranks, {"a": TOLERANCE, "b": 0.0}, random)
        name, reason = choose_set(summaries_of(ranks), lowest_and_highest(rows), pairs, rows, TOLERANCE)
        called += (name, reason.code) == ("a", "sets.adequate")
    assert called / STUDIES <= MOST


@pytest.mark.parametrize(("worse", "use"), [({"a": 0.0, "b": -0.001}, "a"), ({"a": 0.1, "b": 0.0}, "b")])
def test_the_smaller_set_is_used_where_it_is_shown_to_be_adequate(worse: Mapping[str, float], use: str) -> None:
    ranks, best = {"a": (2, 4), "b": (2, 4)}, [("a", 4), ("b", 2)]
    rows, _ = simulate(ranks, worse, np.random.default_rng(2))
    pairs = {
        (one, other): Uncertain(value=worse[one[0]] - worse[other[0]], variance=1e-8, degrees=50)
        for one, other in permutations(rows, 2)
    }
    name, reason = choose_set(summaries_of(ranks), best, pairs, rows, TOLERANCE)
    assert (name, reason.code) == (use, "sets.adequate")
    (found,) = compare_ranks(summaries_of(ranks), pairs, best)
    assert found.p <= LEVEL


def test_a_set_is_adequate_however_its_own_ranks_compare() -> None:
    """A rank of the same set that may be better says nothing of the other set."""
    ranks, best = {"a": (2, 4), "b": (2, 4)}, [("a", 4), ("b", 2)]
    rows, _ = simulate(ranks, {"a": 0.0, "b": 0.1}, np.random.default_rng(2))
    pairs = {
        (one, other): Uncertain(
            value=0.0 if one[0] == other[0] else -0.1 if one[0] == "a" else 0.1,
            variance=1e-2 if one[0] == other[0] else 1e-6,
            degrees=50,
        )
        for one, other in permutations(rows, 2)
    }
    name, reason = choose_set(summaries_of(ranks), best, pairs, rows, TOLERANCE)
    assert (name, reason.code) == ("a", "sets.adequate")

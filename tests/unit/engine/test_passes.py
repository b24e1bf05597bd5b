from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packs import make_spec

from lorascope.data.dataset import Example
from lorascope.engine.forward import PassRow
from lorascope.engine.microbatch import pass_tokens, plan_passes, shares_prefixes
from lorascope.modeling.packing.prefixes import Family

LENGTHS = st.lists(st.lists(st.integers(2, 40), min_size=1, max_size=12), min_size=1, max_size=5)


def make_row(length: int, adapter: int = 0, ids: list[int] | None = None) -> PassRow:
    mask = np.zeros(length, dtype=bool)
    mask[-1] = True
    tokens = np.arange(length) if ids is None else np.array(ids)
    return PassRow(example=Example(input_ids=tokens.astype(np.int64), target_mask=mask), adapter=adapter)


def lengths(rows: list[PassRow]) -> list[int]:
    return [row.example.n_tokens for row in rows]


@given(lengths=LENGTHS, budget=st.integers(1, 120), padded=st.booleans())
def test_every_row_goes_once_within_the_budget_and_beside_its_trial(
    lengths: list[list[int]], budget: int, padded: bool
) -> None:
    rows = [[make_row(length, adapter) for length in own] for adapter, own in enumerate(lengths)]
    passes = plan_passes(rows, tokens_per_pass=budget, padded=padded, share=False)
    assert sorted(id(row) for one in passes for row in one) == sorted(id(row) for own in rows for row in own)
    for one in passes:
        own = [row.example.n_tokens for row in one]
        assert (len(own) * max(own) if padded else sum(own)) <= budget or len(one) == 1
        owners = [row.adapter for row in one]
        assert owners == sorted(owners)


@given(lengths=LENGTHS)
def test_what_fits_together_goes_together(lengths: list[list[int]]) -> None:
    rows = [[make_row(length, adapter) for length in own] for adapter, own in enumerate(lengths)]
    assert len(plan_passes(rows, tokens_per_pass=sum(map(sum, lengths)), padded=False, share=False)) == 1


def test_a_row_longer_than_the_budget_goes_alone_and_longest_rows_go_first() -> None:
    rows = [make_row(length) for length in (3, 50, 4, 3)]
    passes = plan_passes([rows], tokens_per_pass=10, padded=False, share=False)
    assert [lengths(one) for one in passes] == [[50], [4, 3, 3]]


def related_rows(kin: list[int], *, prefix: int = 20, tail: int = 10) -> list[PassRow]:
    """One row for each number, which says what it begins with; rows end in tokens of their own."""
    return [
        make_row(prefix + tail, ids=[*([100 + family] * prefix), *range(tail - 1), 1000 + i])
        for i, family in enumerate(kin)
    ]


def test_a_family_that_fits_is_not_cut_and_its_prefix_counts_once() -> None:
    rows = related_rows([0, 1, 0, 1, 1])
    passes = plan_passes([rows], tokens_per_pass=59, padded=False, share=True)
    begins = [sorted(row.example.input_ids[0] for row in one) for one in passes]
    assert begins == [[100, 100], [101, 101, 101]]
    # rows of a family share the nine tokens behind the prefix, too
    assert [pass_tokens(one, padded=False) for one in passes] == [29 + 2, 29 + 3]


def test_a_family_too_large_for_a_pass_has_its_prefix_in_each() -> None:
    rows = related_rows([0] * 7)
    passes = plan_passes([rows], tokens_per_pass=32, padded=False, share=True)
    assert [len(one) for one in passes] == [3, 3, 1]
    assert [pass_tokens(one, padded=False) for one in passes] == [32, 32, 30]
    assert {row.family for one in passes for row in one} == {Family(rows=tuple(range(7)), shared=29)}


def test_trials_share_no_prefix_with_each_other() -> None:
    rows = [[make_row(30, adapter) for _ in range(2)] for adapter in range(3)]
    (one,) = plan_passes(rows, tokens_per_pass=1000, padded=False, share=True)
    assert pass_tokens(one, padded=False) == 3 * (29 + 1 + 1)


@given(
    kin=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=3),
    budget=st.integers(20, 200),
)
def test_shared_passes_keep_to_the_budget_and_never_cost_more(kin: list[list[int]], budget: int) -> None:
    rows = [
        [PassRow(example=row.example, adapter=adapter) for row in related_rows(own)] for adapter, own in enumerate(kin)
    ]
    passes = plan_passes(rows, tokens_per_pass=budget, padded=False, share=True)
    assert sorted(id(row.example) for one in passes for row in one) == sorted(
        id(row.example) for own in rows for row in own
    )
    families = {}
    for one in passes:
        assert pass_tokens(one, padded=False) <= budget or len(one) == 1
        for row in one:
            families[id(row.example)] = row.family
        places = {}
        for place, row in enumerate(one):
            places.setdefault((row.adapter, row.family), []).append(place)
        for (_, family), found in places.items():
            assert family is None or found == list(range(found[0], found[-1] + 1))
    whole = plan_passes(rows, tokens_per_pass=10_000, padded=False, share=True)
    assert families == {id(row.example): row.family for one in whole for row in one}
    assert sum(pass_tokens(one, padded=False) for one in passes) <= 30 * sum(map(len, kin))


@pytest.mark.parametrize(
    ("choice", "dropout", "training", "expected"),
    [
        ("exact", 0.0, True, True),
        ("exact", 0.1, True, False),
        ("exact", 0.1, False, True),
        ("always", 0.1, True, True),
        ("never", 0.0, False, False),
    ],
)
def test_what_the_study_asks_for(choice: str, dropout: float, training: bool, expected: bool) -> None:
    spec = make_spec(share_prefixes=choice, lora_dropout=dropout)
    assert shares_prefixes(SimpleNamespace(can_share=True), spec, training=training) == expected
    assert not shares_prefixes(SimpleNamespace(can_share=False), spec, training=training)

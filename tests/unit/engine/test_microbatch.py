from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorascope.data.dataset import Example
from lorascope.engine.forward import FrozenModel, MicroBatchRow
from lorascope.engine.microbatch import microbatch_tokens, plan_microbatches, shares_prefixes
from lorascope.modeling.packing.prefixes import PrefixGroup
from support.groups import make_spec

LENGTHS = st.lists(st.lists(st.integers(2, 40), min_size=1, max_size=12), min_size=1, max_size=5)


def make_row(length: int, adapter: int = 0, ids: list[int] | None = None) -> MicroBatchRow:
    mask = np.zeros(length, dtype=bool)
    mask[-1] = True
    tokens = np.arange(length) if ids is None else np.array(ids)
    return MicroBatchRow(example=Example(input_ids=tokens.astype(np.int64), target_mask=mask), adapter=adapter)


def lengths(rows: list[MicroBatchRow]) -> list[int]:
    return [row.example.n_tokens for row in rows]


@given(lengths=LENGTHS, budget=st.integers(1, 120), padded=st.booleans())
def test_microbatches_hold_every_row_once_within_the_budget(
    lengths: list[list[int]], budget: int, padded: bool
) -> None:
    rows = [[make_row(length, adapter) for length in own] for adapter, own in enumerate(lengths)]
    microbatches = plan_microbatches(rows, tokens_per_pass=budget, padded=padded, share=False)
    assert sorted(id(row) for one in microbatches for row in one) == sorted(id(row) for own in rows for row in own)
    for one in microbatches:
        own = [row.example.n_tokens for row in one]
        assert (len(own) * max(own) if padded else sum(own)) <= budget or len(one) == 1
        owners = [row.adapter for row in one]
        assert owners == sorted(owners)


@given(lengths=LENGTHS)
def test_microbatches_merge_what_fits(lengths: list[list[int]]) -> None:
    rows = [[make_row(length, adapter) for length in own] for adapter, own in enumerate(lengths)]
    assert len(plan_microbatches(rows, tokens_per_pass=sum(map(sum, lengths)), padded=False, share=False)) == 1


def test_microbatch_of_a_row_longer_than_the_budget() -> None:
    rows = [make_row(length) for length in (3, 50, 4, 3)]
    microbatches = plan_microbatches([rows], tokens_per_pass=10, padded=False, share=False)
    assert [lengths(one) for one in microbatches] == [[50], [4, 3, 3]]


def related_rows(kin: list[int], *, prefix: int = 20, tail: int = 10) -> list[MicroBatchRow]:
    """One row for each number, which says what it begins with; rows end in tokens of their own."""
    return [
        make_row(prefix + tail, ids=[*([100 + prefix_group] * prefix), *range(tail - 1), 1000 + i])
        for i, prefix_group in enumerate(kin)
    ]


def test_prefix_group_that_fits_is_not_split() -> None:
    rows = related_rows([0, 1, 0, 1, 1])
    microbatches = plan_microbatches([rows], tokens_per_pass=59, padded=False, share=True)
    begins = [sorted(row.example.input_ids[0] for row in one) for one in microbatches]
    assert begins == [[100, 100], [101, 101, 101]]
    # rows of a prefix group share the nine tokens behind the prefix, too
    assert [microbatch_tokens(one, padded=False) for one in microbatches] == [29 + 2, 29 + 3]


def test_prefix_group_larger_than_a_microbatch_repeats_its_prefix() -> None:
    rows = related_rows([0] * 7)
    microbatches = plan_microbatches([rows], tokens_per_pass=32, padded=False, share=True)
    assert [len(one) for one in microbatches] == [3, 3, 1]
    assert [microbatch_tokens(one, padded=False) for one in microbatches] == [32, 32, 30]
    assert {row.prefix_group for one in microbatches for row in one} == {PrefixGroup(rows=tuple(range(7)), shared=29)}


def test_prefix_groups_do_not_span_trials() -> None:
    rows = [[make_row(30, adapter) for _ in range(2)] for adapter in range(3)]
    (one,) = plan_microbatches(rows, tokens_per_pass=1000, padded=False, share=True)
    assert microbatch_tokens(one, padded=False) == 3 * (29 + 1 + 1)


@given(
    kin=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=3),
    budget=st.integers(20, 200),
)
def test_shared_microbatches_keep_the_budget_and_never_cost_more(kin: list[list[int]], budget: int) -> None:
    rows = [
        [MicroBatchRow(example=row.example, adapter=adapter) for row in related_rows(own)]
        for adapter, own in enumerate(kin)
    ]
    microbatches = plan_microbatches(rows, tokens_per_pass=budget, padded=False, share=True)
    assert sorted(id(row.example) for one in microbatches for row in one) == sorted(
        id(row.example) for own in rows for row in own
    )
    prefix_groups = {}
    for one in microbatches:
        assert microbatch_tokens(one, padded=False) <= budget or len(one) == 1
        for row in one:
            prefix_groups[id(row.example)] = row.prefix_group
        places: dict[tuple[int, PrefixGroup | None], list[int]] = {}
        for place, row in enumerate(one):
            places.setdefault((row.adapter, row.prefix_group), []).append(place)
        for (_, prefix_group), found in places.items():
            assert prefix_group is None or found == list(range(found[0], found[-1] + 1))
    whole = plan_microbatches(rows, tokens_per_pass=10_000, padded=False, share=True)
    assert prefix_groups == {id(row.example): row.prefix_group for one in whole for row in one}
    assert sum(microbatch_tokens(one, padded=False) for one in microbatches) <= 30 * sum(map(len, kin))


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
def test_share_prefixes_setting(choice: str, dropout: float, training: bool, expected: bool) -> None:
    spec = make_spec(share_prefixes=choice, lora_dropout=dropout)
    able, unable = (cast("FrozenModel", SimpleNamespace(can_share=can)) for can in (True, False))
    assert shares_prefixes(able, spec, training=training) == expected
    assert not shares_prefixes(unable, spec, training=training)

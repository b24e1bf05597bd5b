import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lorascope.data.examples import Example
from lorascope.engine.forward import PassRow
from lorascope.engine.passes import plan_passes

LENGTHS = st.lists(st.lists(st.integers(2, 40), min_size=1, max_size=12), min_size=1, max_size=5)


def make_row(length: int, adapter: int) -> PassRow:
    mask = np.zeros(length, dtype=bool)
    mask[-1] = True
    return PassRow(example=Example(input_ids=np.zeros(length, dtype=np.int64), target_mask=mask), adapter=adapter)


@given(lengths=LENGTHS, budget=st.integers(1, 120), padded=st.booleans())
def test_every_row_goes_once_within_the_budget_and_beside_its_trial(
    lengths: list[list[int]], budget: int, padded: bool
) -> None:
    rows = [[make_row(length, adapter) for length in own] for adapter, own in enumerate(lengths)]
    passes = plan_passes(rows, tokens_per_pass=budget, padded=padded)
    assert sorted(id(row) for one in passes for row in one) == sorted(id(row) for own in rows for row in own)
    for one in passes:
        own = [row.example.n_tokens for row in one]
        assert (len(own) * max(own) if padded else sum(own)) <= budget or len(one) == 1
        owners = [row.adapter for row in one]
        assert owners == sorted(owners)


@given(lengths=LENGTHS)
def test_what_fits_together_goes_together(lengths: list[list[int]]) -> None:
    rows = [[make_row(length, adapter) for length in own] for adapter, own in enumerate(lengths)]
    assert len(plan_passes(rows, tokens_per_pass=sum(map(sum, lengths)), padded=False)) == 1

"""Rows in columns: views that equal the examples they were made of."""

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lorascope.data.dataset import Example, Examples, hash_splits

rows = st.lists(
    st.lists(st.tuples(st.integers(0, 2**31 - 1), st.booleans()), min_size=2, max_size=6), min_size=1, max_size=6
)


def example(tokens: list[tuple[int, bool]]) -> Example:
    ids, mask = zip(*tokens, strict=True)
    return Example(input_ids=np.array(ids, dtype=np.int64), target_mask=np.array(mask))


@given(tokens=rows, data=st.data())
def test_examples_equal_those_they_were_made_of(tokens: list[list[tuple[int, bool]]], data: st.DataObject) -> None:
    made = tuple(map(example, tokens))
    columns = Examples.of(made)
    assert len(columns) == len(made)
    assert columns.n_tokens.tolist() == [one.n_tokens for one in made]
    assert columns.n_targets.tolist() == [one.n_targets for one in made]
    assert columns.largest_id == max(int(one.input_ids.max()) for one in made)
    digest = hashlib.sha256(np.array(len(made), dtype="<i8").tobytes())
    for one in made:
        digest.update(np.array([one.n_tokens, *one.input_ids], dtype="<i8").tobytes() + bytes(one.target_mask.tolist()))
    assert hash_splits([columns]) == digest.hexdigest()
    order = data.draw(st.permutations(range(len(made))))
    taken = columns.take(np.array(order))
    for place, row in enumerate(order):
        one = taken[place]
        assert (one.input_ids.dtype, one.target_mask.dtype) == (np.int64, np.bool_)
        assert one.input_ids.tolist() == made[row].input_ids.tolist()
        assert one.target_mask.tolist() == made[row].target_mask.tolist()
    assert taken[-1].input_ids.tolist() == made[order[-1]].input_ids.tolist()
    assert len(taken[:2]) == len(made[:2])


def test_no_examples_are_an_empty_sequence() -> None:
    none = Examples.of(())
    assert (len(none), list(none), none.largest_id) == (0, [], 0)

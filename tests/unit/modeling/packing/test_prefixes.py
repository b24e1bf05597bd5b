from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lorascope.modeling.packing.prefixes import PrefixGroup, find_prefix_groups


def rows_of(*parts: tuple[int, ...]) -> list[np.ndarray]:
    """Rows made of runs: each number stands ten times in a row."""
    return [np.repeat(np.array(part, dtype=np.int64), 10) for part in parts]


BATCHES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5).map(tuple), max_size=9).map(
    lambda parts: rows_of(*parts)
)


@given(rows=BATCHES)
def test_prefix_groups_share_their_prefix(rows: list[np.ndarray]) -> None:
    prefix_groups = find_prefix_groups(rows)
    seen = [row for prefix_group in prefix_groups for row in prefix_group.rows]
    assert len(seen) == len(set(seen))
    for prefix_group in prefix_groups:
        assert len(prefix_group.rows) >= 2
        assert prefix_group.shared >= 16
        first = rows[prefix_group.rows[0]][: prefix_group.shared]
        for row in prefix_group.rows:
            np.testing.assert_array_equal(rows[row][: prefix_group.shared], first)
            assert len(rows[row]) > prefix_group.shared


def common(a: np.ndarray, b: np.ndarray) -> int:
    longest = min(len(a), len(b)) - 1
    return next((i for i in range(longest) if a[i] != b[i]), longest)


def most_saved(rows: list[np.ndarray]) -> int:
    """Try every way of cutting the sorted rows."""
    ordered = sorted(rows, key=lambda row: row.tolist())
    best = 0
    for cuts in range(1 << max(len(rows) - 1, 0)):
        edges = [0, *(i + 1 for i in range(len(rows) - 1) if cuts >> i & 1), len(rows)]
        saved = 0
        for first, stop in pairwise(edges):
            shared = min((common(a, b) for a, b in pairwise(ordered[first:stop])), default=0)
            saved += (stop - first - 1) * (shared if shared >= 16 else 0)
        best = max(best, saved)
    return best


@given(rows=BATCHES)
def test_prefix_groups_save_the_most(rows: list[np.ndarray]) -> None:
    saved = sum((len(prefix_group.rows) - 1) * prefix_group.shared for prefix_group in find_prefix_groups(rows))
    assert saved == most_saved(rows)


@given(rows=BATCHES, seed=st.integers(0, 2**32 - 1))
def test_prefix_groups_are_independent_of_row_order(rows: list[np.ndarray], seed: int) -> None:
    def tokens(batch: list[np.ndarray]) -> list[tuple[int, list[list[int]]]]:
        return [(f.shared, sorted(batch[row].tolist() for row in f.rows)) for f in find_prefix_groups(batch)]

    order = np.random.default_rng(seed).permutation(len(rows))
    assert tokens(rows) == tokens([rows[i] for i in order])


def test_prefix_groups_prefer_long_prefixes_of_a_few() -> None:
    rows = rows_of((7, 7, 1, 1, 1, 1, 2), (7, 7, 3, 3, 3, 3, 4), (7, 7, 1, 1, 1, 1, 5), (7, 7, 3, 3, 3, 3, 6))
    assert find_prefix_groups(rows) == (PrefixGroup(rows=(0, 2), shared=60), PrefixGroup(rows=(1, 3), shared=60))


def test_prefix_groups_prefer_a_short_prefix_of_all_for_short_rows() -> None:
    rows = rows_of((7, 7, 1, 2), (7, 7, 3, 4), (7, 7, 1, 5), (8, 8, 8, 8))
    assert find_prefix_groups(rows) == (PrefixGroup(rows=(0, 1, 2), shared=20),)


def test_prefix_groups_of_equal_rows_and_short_prefixes() -> None:
    assert find_prefix_groups(rows_of((5, 5, 5), (5, 5, 5))) == (PrefixGroup(rows=(0, 1), shared=29),)
    assert find_prefix_groups(rows_of((5, 6), (5, 7))) == ()


def test_prefix_groups_of_unrelated_rows() -> None:
    assert find_prefix_groups([]) == ()
    assert find_prefix_groups(rows_of((1, 2, 3))) == ()

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lorascope.data.row_keys import first_of_each, group_rows
from lorascope.data.split import choose_rows, default_eval_rows, hold_out

rows_of_few_prompts = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 20)), min_size=1, max_size=40)


def keys(values: list[int]) -> np.ndarray:
    return np.array([(value % 3, value) for value in values], dtype=np.uint64).reshape(-1, 2)


@given(rows=rows_of_few_prompts, n_eval=st.integers(1, 10), seed=st.integers(0, 20))
def test_split_shares_no_key_and_accounts_for_every_row(rows: list[tuple[int, int]], n_eval: int, seed: int) -> None:
    prompts, texts = keys([prompt for prompt, _ in rows]), keys([text for _, text in rows])
    groups, is_first = group_rows(prompts, texts), first_of_each(texts)
    halves = hold_out(groups, is_first, n_eval=n_eval, seed=seed)
    held = np.isin(groups, groups[halves.eval])
    for part in (0, 1):
        train_keys = {rows[row][part] for row in halves.train}
        assert not train_keys & {row[part] for row, is_held in zip(rows, held, strict=True) if is_held}
    assert not set(halves.train) & set(halves.eval)
    assert len(halves.train) + len(halves.eval) + halves.eval_repeats == len(rows)
    assert len({rows[row][1] for row in halves.eval}) == len(halves.eval) <= n_eval
    assert halves.train_repeats == len(halves.train) - len({rows[row][1] for row in halves.train})
    again = hold_out(groups, is_first, n_eval=n_eval, seed=seed)
    assert again.train.tolist() == halves.train.tolist()


@given(rows=rows_of_few_prompts)
def test_groups_are_what_is_linked_by_equal_keys_in_the_order_of_their_first_rows(rows: list[tuple[int, int]]) -> None:
    groups = group_rows(keys([prompt for prompt, _ in rows]), keys([text for _, text in rows])).tolist()
    linked = [{row} for row in range(len(rows))]
    for one in range(len(rows)):
        for other in range(one):
            if rows[one][0] == rows[other][0] or rows[one][1] == rows[other][1]:
                both = linked[one] | linked[other]
                for row in both:
                    linked[row] = both
    for one, group in enumerate(groups):
        assert {row for row, other in enumerate(groups) if other == group} == linked[one]
    assert list(dict.fromkeys(groups)) == list(range(max(groups) + 1))


@given(n_rows=st.integers(2, 60), seed=st.integers(0, 20), data=st.data())
def test_split_of_distinct_prompts_has_the_size_asked_for(n_rows: int, seed: int, data: st.DataObject) -> None:
    n_eval = data.draw(st.integers(1, n_rows - 1))
    halves = hold_out(np.arange(n_rows), np.ones(n_rows, dtype=bool), n_eval=n_eval, seed=seed)
    assert len(halves.eval) == n_eval
    assert sorted([*halves.train, *halves.eval]) == list(range(n_rows))


def test_split_depends_on_the_seed() -> None:
    alone, first = np.arange(100), np.ones(100, dtype=bool)
    assert len({tuple(hold_out(alone, first, n_eval=10, seed=seed).eval) for seed in range(5)}) == 5
    assert len({tuple(choose_rows(100, n_chosen=10, seed=seed)) for seed in range(5)}) == 5


def test_default_eval_rows_is_a_tenth_between_2_and_256() -> None:
    assert [default_eval_rows(n) for n in (2, 9, 30, 200, 20_000)] == [2, 2, 3, 20, 256]

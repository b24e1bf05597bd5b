from hypothesis import given
from hypothesis import strategies as st

from lorascope.data.split import choose_rows, default_eval_rows, hold_out

rows_of_few_prompts = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("xyz")), min_size=1, max_size=40)


@given(rows=rows_of_few_prompts, n_eval=st.integers(1, 10), seed=st.integers(0, 20))
def test_split_shares_no_prompt_and_accounts_for_every_row(rows: list[tuple[str, str]], n_eval: int, seed: int) -> None:
    halves = hold_out(rows, n_eval=n_eval, seed=seed)
    train_prompts = {rows[row][0] for row in halves.train}
    eval_prompts = {rows[row][0] for row in halves.eval}
    assert not train_prompts & eval_prompts
    assert not set(halves.train) & set(halves.eval)
    assert len(halves.train) + len(halves.eval) + halves.eval_repeats == len(rows)
    assert len({rows[row] for row in halves.eval}) == len(halves.eval) <= n_eval
    assert halves.train_repeats == len(halves.train) - len({rows[row] for row in halves.train})
    assert halves == hold_out(rows, n_eval=n_eval, seed=seed)


@given(n_rows=st.integers(2, 60), seed=st.integers(0, 20), data=st.data())
def test_split_of_distinct_prompts_has_the_size_asked_for(n_rows: int, seed: int, data: st.DataObject) -> None:
    n_eval = data.draw(st.integers(1, n_rows - 1))
    halves = hold_out([(str(row), "") for row in range(n_rows)], n_eval=n_eval, seed=seed)
    assert len(halves.eval) == n_eval
    assert sorted(halves.train + halves.eval) == list(range(n_rows))


def test_split_depends_on_the_seed() -> None:
    rows = [(str(row), "") for row in range(100)]
    assert len({hold_out(rows, n_eval=10, seed=seed).eval for seed in range(5)}) == 5
    assert len({choose_rows(100, n_chosen=10, seed=seed) for seed in range(5)}) == 5


def test_default_eval_rows_is_a_tenth_between_2_and_256() -> None:
    assert [default_eval_rows(n) for n in (2, 9, 30, 200, 20_000)] == [2, 2, 3, 20, 256]

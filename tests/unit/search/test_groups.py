"""Splitting a round into trial groups."""

from hypothesis import given
from hypothesis import strategies as st

from lorascope.records import TrialRecord
from lorascope.search.groups import heaviest_share, split_round
from lorascope.search.halving import Rungs
from lorascope.search.rounds import SearchRound


def trial(rank: int, rate: float, seed: int = 0) -> TrialRecord:
    name = f"r{rank}-lr{rate}-s{seed}"
    return TrialRecord(
        trial_id=name, targets="", rank=rank, lora_alpha=32.0, scale=1.0, learning_rate=rate, seed=seed
    )  # fmt: skip


def round_of(trials: list[TrialRecord], rungs: tuple[int, ...] = ()) -> SearchRound:
    return SearchRound(number=0, trials=tuple(trials), rungs=Rungs(steps=rungs), base_nats=None)


def names(groups: tuple[tuple[TrialRecord, ...], ...]) -> list[list[str]]:
    return [[one.trial_id for one in group] for group in groups]


def work(arm: tuple[str, int]) -> float:
    return 100.0 + arm[1]


def test_rates_of_a_rank_stay_together_where_they_are_compared() -> None:
    trials = [trial(rank, rate) for rank in (8, 16, 64) for rate in (1e-4, 1e-3)]
    groups = split_round(round_of(trials, rungs=(1, 3)), 4, work)
    assert [{one.rank for one in group} for group in groups] == [{8}, {16}, {64}]


def test_without_rungs_the_heaviest_trials_are_spread_first() -> None:
    trials = [trial(rank, 1e-3, seed) for rank in (8, 400) for seed in (1, 2)]
    assert names(split_round(round_of(trials), 2, work)) == [
        ["r8-lr0.001-s1", "r400-lr0.001-s1"], ["r8-lr0.001-s2", "r400-lr0.001-s2"],
    ]  # fmt: skip


@given(
    st.lists(st.tuples(st.integers(1, 512), st.integers(0, 5)), min_size=1, max_size=30, unique=True),
    st.integers(1, 40),
)
def test_groups_hold_every_trial_once_and_are_balanced(pairs: list[tuple[int, int]], count: int) -> None:
    trials = [trial(rank, 1e-3, seed) for rank, seed in pairs]
    groups = split_round(round_of(trials), count, work)
    assert sorted(one.trial_id for group in groups for one in group) == sorted(one.trial_id for one in trials)
    assert len(groups) == min(count, len(trials))
    loads = [sum(work(one.arm) for one in group) for group in groups]
    assert max(loads) - min(loads) <= max(work(one.arm) for one in trials)


def test_share_of_the_heaviest_group() -> None:
    three = round_of([trial(rank, 1e-3) for rank in (8, 16, 64)])
    assert [heaviest_share(three, count, lambda arm: 1.0) for count in (1, 2, 3, 9)] == [1.0, 2 / 3, 1 / 3, 1 / 3]

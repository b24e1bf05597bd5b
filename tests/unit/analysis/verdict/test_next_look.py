"""Looks of made-up studies whose truth is known."""

from collections.abc import Collection
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from lorascope.analysis.study_data import StudyData
from lorascope.analysis.summarize import summarize_data
from lorascope.analysis.verdict.next_look import Prices, next_look
from lorascope.records import EvalRecord, OutcomeState
from made_up_studies import MadeUp, Truth, studies
from sequential_simulation import HELD, MOST_ROWS, PRICES, named_rank, score, sequential, split_rows
from verdict_simulation import truth_of


def study_of(effect: float, **changes: Any) -> MadeUp:
    truth = replace(truth_of(effect, 8, MOST_ROWS), rates=(3e-4,), **changes)
    return split_rows(next(studies(truth, 1, 5)))


def test_a_clear_difference_is_decided_and_its_rank_left_out() -> None:
    summary, looks = sequential(study_of(0.05))
    assert named_rank(summary) == 64
    assert looks[0].ranks == (8, 64, 256)
    assert looks[-1].next == "decided"
    assert looks[-1].ranks == (64, 256)
    claims = {claim.rank: claim for claim in summary.verdict.claims}
    assert claims[8].inadequate_p <= 0.05
    above = {part.rank: part.excess_loss_ci95 for part in summary.ranks}
    assert above[8] is not None
    assert above[8][0] < 0.05 < above[8][1]


def test_the_losses_of_the_table_are_the_lowest_and_the_paired_differences() -> None:
    summary, _ = sequential(study_of(0.05))
    lowest = min(part.eval_loss for part in summary.ranks if part.eval_loss is not None)
    for part in summary.ranks:
        assert part.eval_loss is not None
        assert part.excess_loss is not None
        assert part.eval_loss == pytest.approx(lowest + part.excess_loss, abs=1e-12)


def test_looks_grow_and_know_more() -> None:
    _, looks = sequential(study_of(0.0))
    assert [look.look for look in looks] == list(range(1, len(looks) + 1))
    for before, after in pairwise(looks):
        assert after.information >= before.information
        assert len(after.seeds) + after.rows > len(before.seeds) + before.rows
    assert looks[0].rows == HELD
    assert looks[-1].next in ("decided", "exhausted")
    assert looks[-1].information == 1.0 or looks[-1].next == "decided"


def test_cheap_rows_come_before_dear_seeds_and_the_other_way_round() -> None:
    study = study_of(0.0, seed_of_rank=0.0, seed_of_rate=0.0)
    assert next_look(study.data, rows=MOST_ROWS, prices=PRICES).next == "rows"
    dear = Prices(row=1e6, trial=1.0, token_seconds=1.0)
    assert next_look(study.data, rows=MOST_ROWS, prices=dear).next == "seed"
    assert next_look(study.data, rows=HELD, prices=PRICES).next == "seed"


def test_a_study_without_time_left_spends_what_it_may_and_says_what_it_lacks() -> None:
    study = study_of(0.0, seed_of_rank=0.004)
    look = next_look(study.data, rows=MOST_ROWS, prices=PRICES, seconds_left=0.0)
    assert (look.next, look.information) == ("budget", 1.0)
    assert look.next_seconds > 0
    summary = summarize_data(replace(study.data, looks=(look,)))
    assert summary.verdict.kind == "too_short"


def test_a_score_counts_right_verdicts_and_costs() -> None:
    found = score("quick", Truth(floors={8: 1.05, 64: 1.0}, seeds=8, rows=MOST_ROWS), 2)
    assert (found.named, found.false_claim) == (1.0, 0.0)
    assert 3 / 8 * 0.8 < found.cost < 1
    assert found.fixed_named["8x1024"] == 1.0


def without_seed(
    data: StudyData, seed: int, ranks: Collection[int] = (8, 64, 256), state: OutcomeState = "stopped"
) -> StudyData:
    """End trials of a seed, for want of time or because they diverged."""
    ended = {
        trial.trial_id: replace(data.outcomes[trial.trial_id], state=state)
        for trial in data.trials
        if trial.seed == seed and trial.rank in ranks
    }
    return replace(data, outcomes=data.outcomes | ended)


def test_a_seed_that_the_time_left_out_is_not_bought_again() -> None:
    data = without_seed(study_of(0.0, seed_of_rank=0.004).data, 1)
    look = next_look(data, rows=HELD, prices=PRICES)
    assert look.seeds == (0, 2)
    assert (look.next, look.next_value) == ("seed", 3)


def test_a_bought_seed_that_did_not_train_leaves_the_study_with_what_it_has() -> None:
    data = study_of(0.0, seed_of_rank=0.004).data
    first = next_look(data, rows=HELD, prices=PRICES)
    assert (first.next, first.next_value) == ("seed", 3)
    data = replace(without_seed(data, 3), looks=(first,))
    second = next_look(data, rows=HELD, prices=PRICES)
    assert (second.ranks, second.seeds) == (first.next_ranks, (0, 1, 2))
    assert (second.next, second.next_value) == ("seed", 4)
    last = next_look(data, rows=HELD, prices=PRICES, seconds_left=0.0)
    assert (last.next, last.information, last.ranks) == ("budget", 1.0, first.next_ranks)
    summary = summarize_data(replace(data, looks=(first, last)))
    assert summary.looks[-1].next == "budget"


def test_one_seed_decides_nothing_and_names_the_time_of_the_missing_ones() -> None:
    """The time ended before the second seed: even a clear difference holds in that seed alone."""
    study = study_of(0.05)
    first = [trial for trial in study.data.trials if trial.seed == 0]
    data = replace(
        study.data,
        trials=tuple(first),
        outcomes={trial.trial_id: study.data.outcomes[trial.trial_id] for trial in first},
    )
    look = next_look(data, rows=MOST_ROWS, prices=PRICES, seconds_left=0.0)
    assert (look.next, look.seeds, look.information) == ("budget", (0,), 1.0)
    assert look.next_seconds == 2 * len(look.next_ranks) * PRICES.trial


def test_a_rank_that_diverged_in_one_seed_is_compared_in_the_others() -> None:
    """Left out, the best rank would make the smaller ones seem good enough."""
    truth = replace(truth_of(0.0, 8, MOST_ROWS), floors={8: 1.0, 64: 1.0, 256: 0.97}, rates=(3e-4,))
    data = split_rows(next(studies(truth, 1, 5))).data
    look = next_look(without_seed(data, 1, (256,), "diverged"), rows=MOST_ROWS, prices=PRICES)
    assert (look.ranks, look.seeds) == ((8, 64, 256), (0, 2))
    assert (look.next, look.next_value) == ("seed", 3)
    never = without_seed(without_seed(without_seed(data, 0, (256,)), 1, (256,)), 2, (256,))
    assert next_look(without_seed_from(never, 3, 256), rows=MOST_ROWS, prices=PRICES).ranks == (8, 64)


def without_seed_from(data: StudyData, first: int, rank: int) -> StudyData:
    for seed in range(first, 8):
        data = without_seed(data, seed, (rank,), "diverged")
    return data


def test_a_bought_seed_in_which_one_rank_diverged_is_not_bought_again() -> None:
    data = study_of(0.0, seed_of_rank=0.004).data
    first = next_look(data, rows=HELD, prices=PRICES)
    assert first.next_value == 3
    data = replace(without_seed(data, 3, (64,), "diverged"), looks=(first,))
    second = next_look(data, rows=HELD, prices=PRICES)
    assert (second.ranks, second.seeds) == (first.next_ranks, (0, 1, 2))
    assert (second.next, second.next_value) == ("seed", 4)


@pytest.mark.parametrize(("most", "follows"), [(30, ("rows", 30)), (15, ("exhausted", 0))])
def test_too_few_rows_are_followed_by_rows(
    monkeypatch: pytest.MonkeyPatch, most: int, follows: tuple[str, int]
) -> None:
    """No verdict rests on fewer than 20, however clear it seems; seeds are no help."""
    monkeypatch.setattr("sequential_simulation.HELD", 15)
    look = next_look(study_of(0.05).data, rows=most, prices=PRICES)
    assert look.rows == 15
    assert (look.next, look.next_value) == follows


def test_two_seeds_decide_only_where_no_third_can_follow() -> None:
    data = without_seed(study_of(0.05, seed_of_rank=0.0002, row_of_rank=0.002, row_of_trial=0.002).data, 1)
    assert next_look(data, rows=HELD, prices=PRICES).next == "seed"
    assert next_look(data, rows=HELD, prices=PRICES, seconds_left=0.0).next == "decided"


def test_a_study_whose_loss_still_falls_is_not_decided() -> None:
    data = study_of(0.05, seed_of_rank=0.0002, row_of_rank=0.002, row_of_trial=0.002).data
    assert next_look(data, rows=HELD, prices=PRICES, seconds_left=0.0).next == "decided"
    late: dict[str, tuple[EvalRecord, ...]] = {
        name: (first, replace(middle, example_nats=first.example_nats), last)
        for name, (first, middle, last) in data.evaluations.items()
    }
    assert next_look(replace(data, evaluations=late), rows=HELD, prices=PRICES, seconds_left=0.0).next == "steps"

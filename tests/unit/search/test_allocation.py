"""Steps that a time buys: a pure function of the study, its sizes and the work that fits."""

from types import SimpleNamespace
from typing import Any

import pytest

from lorascope.search.allocation import (
    Allocation,
    Pace,
    allocate,
    choose_steps,
    end_seconds,
    plan_solo_runs,
    training_cost,
)
from lorascope.search.work import TRAINING, Sizes, planned_work
from lorascope.spec.schema import StudySpec

ONE_RATE = StudySpec(ranks=(8, 64), learning_rates=(3e-4,), until_decided=True)
AUTO = StudySpec(ranks=(8, 64), learning_rates="auto", until_decided=True)
FIXED = StudySpec(ranks=(8,), seeds=(0, 1))


def sizes(most: int) -> Sizes:
    return Sizes(total_steps=most, step_tokens=1000.0, heaviest_tokens=1000.0, eval_tokens=5000.0, eval_examples=50)


def test_cost_by_hand() -> None:
    """Two ranks, one rate, three seeds: six trainings of ten steps, each evaluated four times, and the base once."""
    assert training_cost(ONE_RATE, sizes(99), steps=10, seeds=3) == 5000 + 6 * (10 * TRAINING * 1000 + 4 * 5000)


def test_a_search_costs_less_than_its_whole_grid() -> None:
    search = training_cost(AUTO, sizes(99), steps=80, seeds=1)
    whole = training_cost(AUTO.model_copy(update={"early_exit": False}), sizes(99), steps=80, seeds=1)
    assert whole / 2 < search < whole


@pytest.mark.parametrize("spec", [ONE_RATE, AUTO, FIXED])
def test_the_chosen_steps_fit_and_one_more_would_not(spec: StudySpec) -> None:
    seeds, work = 3 if spec.until_decided else 2, 30e6
    steps = choose_steps(spec, sizes(10_000), work=work)
    assert training_cost(spec, sizes(10_000), steps=steps, seeds=seeds) <= work
    assert training_cost(spec, sizes(10_000), steps=steps + 1, seeds=seeds) > work


def test_steps_end_with_the_epochs() -> None:
    assert choose_steps(AUTO, sizes(100), work=1e12) == 100


def test_fewer_seeds_where_each_would_have_few_steps() -> None:
    enough = training_cost(AUTO, sizes(1000), steps=40, seeds=3)
    assert choose_steps(AUTO, sizes(1000), work=enough) == 40
    assert choose_steps(AUTO, sizes(1000), work=training_cost(AUTO, sizes(1000), steps=39, seeds=3)) > 40
    assert choose_steps(AUTO, sizes(20), work=training_cost(AUTO, sizes(20), steps=20, seeds=3)) == 20


def test_no_step_fits() -> None:
    assert choose_steps(AUTO, sizes(1000), work=training_cost(AUTO, sizes(1000), steps=1, seeds=1) - 1) == 0


def test_answers_take_a_small_share_of_a_short_budget_and_all_they_need_of_a_long_one() -> None:
    spec, pace = StudySpec(ranks=(8, 64)), Pace(training=0.01, evaluation=0.01)
    none = spec.model_copy(update={"samples": 0})
    needed = planned_work(spec, sizes(80))["samples"] * pace.evaluation

    def kept(seconds: float) -> float:
        with_answers, without = (end_seconds(one, sizes(80), pace.evaluation, seconds=seconds) for one in (spec, none))
        return with_answers - without

    assert kept(200.0) == pytest.approx(0.03 * 200)
    assert kept(1e6) == pytest.approx(needed)
    assert needed > 0.03 * 200


def test_steps_follow_from_the_busiest_device() -> None:
    def found(share: float, seconds: float) -> int:
        pace = Pace(training=1e-4, evaluation=1e-4)
        spec = FIXED.model_copy(update={"cost": "off"})
        return allocate(spec, sizes(10_000), pace, seconds=seconds, used=0.0, share=share).steps

    assert 0 < found(1.0, 600.0) < found(2 / 3, 600.0) < found(0.5, 600.0)


@pytest.mark.parametrize("cost", ["off", "full"])
@pytest.mark.parametrize("token_seconds", [1e-3, 1e-2, 0.2])
def test_the_time_that_is_named_as_the_least_is_accepted_and_a_shorter_one_is_not(
    token_seconds: float, cost: str
) -> None:
    """Solo runs that would not fit beside the least are left out, and what is kept for the end grows with the time."""
    spec = FIXED.model_copy(update={"cost": cost, "samples": 8, "metrics": ("rouge_l",)})
    pace = Pace(training=token_seconds, evaluation=token_seconds)

    def planned(seconds: float) -> Allocation:
        return allocate(spec, sizes(10_000), pace, seconds=seconds, used=7.5)

    least = planned(20.0).least_seconds
    assert planned(20.0).steps == 0
    assert planned(least).steps >= 1
    assert planned(least - (61 if least > 3600 else 2)).steps == 0
    assert (least > 3600) == (token_seconds == 0.2)
    assert least < 3600 or least % 60 == 0


def test_solo_runs_have_a_small_share_of_the_time_and_of_what_is_left() -> None:
    """Two ranks run four times, six steps each: 48 steps of 2000, and each rank evaluates 500 tokens once."""
    spec, pace = ONE_RATE.model_copy(update={"cost": "full", "tokens_per_pass": 500}), Pace(training=1e-3, evaluation=1)
    needed = pytest.approx(48 * 2 + 2 * 0.5)
    out = (0.0, ("solo_runs",))
    assert plan_solo_runs(spec, sizes(99), pace, seconds=97.1 / 0.15, left=97.1) == (needed, ())
    assert plan_solo_runs(spec, sizes(99), pace, seconds=96.9 / 0.15, left=97.1) == out
    assert plan_solo_runs(spec, sizes(99), pace, seconds=97.1 / 0.15, left=96.9) == out


def test_solo_runs_that_are_made_take_no_time() -> None:
    spec, pace = ONE_RATE.model_copy(update={"cost": "full"}), Pace(training=1e9, evaluation=1e9)
    made: Any = [SimpleNamespace(arm=("", rank), repeat=repeat) for rank in spec.ranks for repeat in range(4)]
    assert plan_solo_runs(spec, sizes(99), pace, seconds=1.0, left=-1.0, made=made) == (0.0, ())
    assert plan_solo_runs(spec, sizes(99), pace, seconds=1.0, left=-1.0, made=made[1:]) == (0.0, ("solo_runs",))

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from lorascope.records import LookRecord
from lorascope.search.rounds import next_trials
from lorascope.search.steps import evaluation_steps
from lorascope.search.work import TRAINING, Sizes, TrialProgress, planned_work, rounds_to_come, training_work
from lorascope.spec.schema import StudySpec

SIZES = Sizes(total_steps=80, step_tokens=100.0, heaviest_tokens=150.0, eval_tokens=400.0, eval_examples=8)


def spec_of(**changes: Any) -> StudySpec:
    fields = {"ranks": (8, 64), "learning_rates": (1e-3,), "seeds": (0,), **changes}
    return StudySpec.model_validate(fields)


def first_round(spec: StudySpec) -> list[TrialProgress]:
    return [TrialProgress(trial=trial) for trial in next_trials(spec, [], {})]


def test_work_of_a_plain_study_counts_each_token() -> None:
    spec = spec_of(cost="quick", forgetting_text="none", truncation=False)
    work = planned_work(spec, SIZES)
    solo_steps = 2 * (TRAINING * (100 + 100) + TRAINING * (100 + 150) + 400)
    assert work["solo_runs"] == pytest.approx(solo_steps)
    assert work["training"] == 2 * 80 * TRAINING * 100
    assert work["evaluation"] == (2 * 4 + 1) * 400
    assert work["forgetting_text"] == work["truncation"] == work["spectra"] == 0
    assert work["proof"] == 3 * 3 * 50


def test_an_adapter_makes_a_token_dearer_by_its_parameters() -> None:
    spec = spec_of(ranks=(8, 64), cost="off", truncation=False)
    sizes = replace(SIZES, adapter_share={"": 0.01}, text_tokens=10.0)
    work = planned_work(spec, sizes)
    assert work["solo_runs"] == 0
    assert work["training"] == pytest.approx(80 * TRAINING * 100 * (1.08 + 1.64))
    assert work["forgetting_text"] == pytest.approx(10 * (1 + 1.08 + 1.64))
    assert work["spectra"] > 0


def test_truncation_counts_every_rank_below_the_top_one() -> None:
    work = planned_work(spec_of(ranks=(8, 12)), SIZES)
    assert work["truncation"] == 4 * 400


def test_early_exit_counts_settings_that_are_expected_to_stay() -> None:
    rates = (1e-3, 2e-3, 4e-3, 8e-3)
    spec = spec_of(ranks=(8,), learning_rates=rates, max_grid_extensions=0)
    whole = training_work(spec_of(ranks=(8,), learning_rates=rates, early_exit=False), SIZES, first_round(spec))
    work = training_work(spec, SIZES, first_round(spec))
    step = TRAINING * 100
    # four settings to step 10, two and the chance of a third to step 30, then one and the chance of a second
    assert work["training"] == step * (4 * 10 + 2.5 * 20 + 1.5 * 50)
    assert work["training"] < whole["training"]
    assert work["evaluation"] == 400 * (1 + 4 + 2.5 + 1.5 * 2)


def test_trials_that_stay_at_a_rung_are_counted_in_full_until_the_next() -> None:
    spec = spec_of(ranks=(8,), learning_rates=(1e-3, 2e-3, 4e-3, 8e-3), max_grid_extensions=0)
    trials = first_round(spec)
    for one in trials:
        one.steps, one.evaluated = 10, 10
    trials[0].ended = trials[3].ended = True
    work = training_work(spec, SIZES, trials)
    assert work["training"] == TRAINING * 100 * (2 * 20 + 1.5 * 50)


def test_later_seeds_are_counted_before_they_are_known() -> None:
    spec = spec_of(learning_rates=(1e-3, 2e-3, 4e-3), seeds=(0, 1, 2))
    trials = next_trials(spec, [], {})
    (later,) = rounds_to_come(spec, trials, {})
    assert [trial.trial_id for trial in later] == [f"r{rank}-lr0.002-s{seed}" for rank in (8, 64) for seed in (1, 2)]
    losses = {trial.trial_id: trial.learning_rate for trial in trials}
    extended, later = rounds_to_come(spec, trials, losses)
    assert [trial.trial_id for trial in extended] == ["r8-lr0.0005", "r64-lr0.0005"]
    assert {trial.seed for trial in later} == {1, 2}


def test_a_sequential_study_counts_its_first_seeds_and_what_looks_asked_for() -> None:
    spec = spec_of(until_decided=True)
    trials = [*next_trials(spec, [], {})]
    second, third = rounds_to_come(spec, trials, {})
    assert ({trial.seed for trial in second}, {trial.seed for trial in third}) == ({1}, {2})
    trials += [*second, *third]
    assert rounds_to_come(spec, trials, {}) == []
    look = LookRecord(
        look=1, ranks=(8, 64), lora_alphas=(32.0, 32.0), learning_rates=(1e-3, 1e-3), seeds=(0, 1, 2), rows=8,
        information=0.5, next="seed", next_ranks=(64,), next_value=3, next_seconds=1.0,
    )  # fmt: skip
    ((asked,),) = rounds_to_come(spec, trials, {}, [look])
    assert asked.arm == ("", 64)
    assert asked.seed == 3


def test_work_falls_to_zero_as_trials_train() -> None:
    spec = spec_of(ranks=(8, 64))
    trials = first_round(spec)
    left = []
    for step in range(81):
        for one in trials:
            one.steps = step
            if step in evaluation_steps(spec, 80):
                one.evaluated = step
        left.append(training_work(spec, SIZES, trials))
    assert all(now["training"] < before["training"] for before, now in pairwise(left))
    assert left[-1] == {"training": 0.0, "evaluation": 0.0}


def test_answers_count_prompts_and_steps_of_generation() -> None:
    spec = spec_of(ranks=(8, 64), samples=5, max_new_tokens=10)
    sizes = replace(SIZES, adapter_share={"": 0.01})
    costs = 1 + 1.08 + 1.64
    assert planned_work(spec, sizes)["samples"] == pytest.approx(5 * (400 / 8 * costs + 10 * (32 + costs)))
    assert planned_work(spec, replace(sizes, eval_examples=2, eval_tokens=100.0))["samples"] == pytest.approx(
        2 * (50 * costs + 10 * (32 + costs))
    )
    assert planned_work(spec, sizes, left_out=("samples",))["samples"] == 0

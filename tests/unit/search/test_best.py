"""The best learning rate of a rank and the trial that stands for it: one policy for adapters and report."""

import math

from lorascope.records import EvalRecord, OutcomeState, TrialOutcome, TrialRecord
from lorascope.search.best import best_settings, last_finite, latest_losses, representative_trials
from lorascope.search.trials import plan_trials
from lorascope.spec.schema import StudySpec

RATES = (2e-3, 1e-3)


def evaluation(step: int, nats: float, trial_id: str = "t") -> EvalRecord:
    return EvalRecord(trial_id=trial_id, step=step, example_nats=(nats,), example_target_tokens=(1,), seconds=0.1)


def outcome(trial_id: str, state: OutcomeState) -> TrialOutcome:
    return TrialOutcome(trial_id=trial_id, state=state, steps=1, message=None)


def grid() -> tuple[TrialRecord, ...]:
    return plan_trials(StudySpec(ranks=(64, 8), learning_rates=RATES, seeds=(3, 1)))


def test_last_finite_evaluation_after_step_0_is_used() -> None:
    records = [evaluation(0, 9.0), evaluation(5, 3.0), evaluation(9, math.nan)]
    found = last_finite(records)
    assert found is not None
    assert found.step == 5
    assert last_finite(records[:1]) is None


def test_latest_losses_omit_trials_that_ended_early() -> None:
    states: tuple[OutcomeState, ...] = ("running", "finished", "stopped", "diverged", "oom", "failed")
    outcomes = {str(state): outcome(state, state) for state in states}
    evaluations = {name: [evaluation(0, 9.0, name), evaluation(2, 1.5, name)] for name in (*states, "without")}
    assert latest_losses(outcomes, evaluations) == {"running": 1.5, "finished": 1.5, "without": 1.5}


def test_best_rate_has_most_seeds_then_the_lowest_loss() -> None:
    losses = {"r8-lr0.001": 1.0, "r8-lr0.002": 2.0, "r8-lr0.002-s1": 2.0, "r64-lr0.001-s1": 3.0}
    assert list(best_settings(grid(), losses).items()) == [(("", 8), (32, 2e-3)), (("", 64), (32, 1e-3))]
    assert best_settings(grid(), {}) == {}


def test_best_of_equal_rates_is_the_lowest() -> None:
    assert best_settings(grid(), {"r8-lr0.002": 1.0, "r8-lr0.001": 1.0}) == {("", 8): (32, 1e-3)}


def test_best_alpha_and_rate_are_chosen_together() -> None:
    trials = plan_trials(StudySpec(ranks=(8,), learning_rates=RATES, lora_alpha=(16, 64)))
    losses = {"r8-a16-lr0.001": 2.0, "r8-a16-lr0.002": 1.5, "r8-a64-lr0.001": 1.2, "r8-a64-lr0.002": 1.8}
    best = best_settings(trials, losses)
    assert best == {("", 8): (64, 1e-3)}
    assert representative_trials(trials, best, lambda _: True) == {("", 8): "r8-a64-lr0.001"}


def test_representative_trial_is_the_first_usable_seed_at_the_best_rate() -> None:
    settings = {("", 8): (32.0, 1e-3), ("", 64): (32.0, 2e-3)}
    assert [*representative_trials(grid(), settings, lambda _: True).values()] == ["r8-lr0.001", "r64-lr0.002"]
    assert representative_trials(grid(), settings, lambda name: name.endswith("s1")) == {
        ("", 8): "r8-lr0.001-s1", ("", 64): "r64-lr0.002-s1",
    }  # fmt: skip
    assert representative_trials(grid(), settings, lambda name: name.startswith("r64")) == {("", 64): "r64-lr0.002"}

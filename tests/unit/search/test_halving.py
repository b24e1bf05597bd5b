from collections.abc import Mapping
from typing import Any

import pytest

from lorascope.message import Message
from lorascope.records import TrialRecord
from lorascope.search.halving import MARGIN_NATS, Rival, Rungs
from lorascope.search.steps import evaluation_steps, exits_early, rung_steps
from lorascope.search.trials import plan_trials
from lorascope.spec.schema import StudySpec

RATES = (1e-4, 3e-4, 1e-3, 3e-3)
FAR, NEAR = 3 * MARGIN_NATS, MARGIN_NATS / 2
RUNGS = Rungs(steps=(3, 9))


def planned(**changes: Any) -> tuple[TrialRecord, ...]:
    return plan_trials(StudySpec.model_validate({"ranks": (8,), "learning_rates": RATES, **changes}))


def losses(*values: float, **changes: Any) -> dict[str, float]:
    return {trial.trial_id: value for trial, value in zip(planned(**changes), values, strict=True)}


def trials_to_stop(step: int, given: Mapping[str, float], rungs: Rungs = RUNGS, **changes: Any) -> set[str]:
    return set(rungs.trials_to_stop(step, planned(**changes), given))


def test_halving_keeps_half_then_a_quarter() -> None:
    given = losses(1 + 2 * FAR, 1.0, 1 + FAR, 1 + 3 * FAR)
    assert trials_to_stop(3, given) == {"r8-lr0.0001", "r8-lr0.003"}
    assert trials_to_stop(9, given) == {"r8-lr0.0001", "r8-lr0.001", "r8-lr0.003"}
    assert trials_to_stop(4, given) == set()


def test_halving_keeps_one_higher_rate_within_the_margin() -> None:
    assert trials_to_stop(9, losses(1 + FAR, 1.0, 1 + NEAR, 1 + FAR)) == {"r8-lr0.0001", "r8-lr0.003"}
    assert trials_to_stop(9, losses(1.0, 1 + NEAR, 1 + FAR, 1 + 0.9 * NEAR)) == {"r8-lr0.0003", "r8-lr0.001"}
    assert trials_to_stop(3, losses(1.0, 1 + 0.2 * NEAR, 1 + NEAR, 1 + FAR)) == {"r8-lr0.003"}


def test_halving_keeps_a_lower_rate_only_under_a_constant_schedule() -> None:
    given = losses(1 + FAR, 1 + NEAR, 1.0, 1 + FAR)
    assert trials_to_stop(9, given) == {"r8-lr0.0001", "r8-lr0.0003", "r8-lr0.003"}
    assert trials_to_stop(9, given, Rungs(steps=(3, 9), falling=False)) == {"r8-lr0.0001", "r8-lr0.003"}


def test_halving_gives_the_places_of_diverged_trials_to_others() -> None:
    given = losses(1.0, 1 + FAR, 1 + 2 * FAR, 1 + 3 * FAR)
    there = {name: loss for name, loss in given.items() if name in ("r8-lr0.001", "r8-lr0.003")}
    assert trials_to_stop(3, there) == set()
    assert trials_to_stop(9, there) == {"r8-lr0.003"}


def test_halving_is_idempotent() -> None:
    """So that a run that is continued at a rung goes on as it would have."""
    for values in ((1.0, 1 + FAR, 1 + FAR + NEAR, 2.0), (1.0, 1.1, 1.2, 1.3), (1.0, 1.0, 1.0, 1.0)):
        given = losses(*values)
        for step in (3, 9):
            stayed = {name: loss for name, loss in given.items() if name not in trials_to_stop(step, given)}
            assert trials_to_stop(step, stayed) == set()


def test_halving_does_not_compare_ranks() -> None:
    ranks: dict[str, Any] = {"ranks": (8, 64)}
    given = losses(1.0, 2.0, 3.0, 4.0, 11.0, 12.0, 13.0, 14.0, **ranks)
    assert trials_to_stop(9, given, **ranks) == {name for name in given if not name.endswith("lr0.0001")}


def test_halving_compares_the_rates_of_all_alphas() -> None:
    """A setting near the best also stays where its step changes the adapter by more: alpha times the rate squared."""
    axes: dict[str, Any] = {"lora_alpha": (16, 64), "learning_rates": (1e-3, 3e-3)}
    near, far = 1 + NEAR, 1 + FAR
    assert trials_to_stop(3, losses(far, 1.0, 1 + 2 * FAR, near, **axes), **axes) == {
        "r8-a16-lr0.001", "r8-a64-lr0.001",
    }  # fmt: skip
    assert trials_to_stop(9, losses(near, 1.0, far, near, **axes), **axes) == {"r8-a16-lr0.001", "r8-a64-lr0.001"}
    assert trials_to_stop(9, losses(near, far, 1.0, far, **axes), **axes) == {
        "r8-a16-lr0.001", "r8-a16-lr0.003", "r8-a64-lr0.003",
    }  # fmt: skip


def test_halving_does_not_compare_sets_of_targets() -> None:
    axes: dict[str, Any] = {"target_modules": (("q_proj",), "all-linear")}
    given = losses(1.0, 2.0, 3.0, 4.0, 11.0, 12.0, 13.0, 14.0, **axes)
    assert trials_to_stop(9, given, **axes) == {name for name in given if not name.endswith("lr0.0001")}


def test_halving_averages_seeds() -> None:
    seeds: dict[str, Any] = {"seeds": (0, 1)}
    given = losses(1.0, 1.5, 1.2, 1.2, 3.0, 3.0, 2.0, 2.0, **seeds)
    assert trials_to_stop(9, given, **seeds) == {name for name in given if not name.startswith("r8-lr0.0003")}


def test_halving_stops_an_added_rate_behind_the_best() -> None:
    rungs = Rungs(steps=(3, 9), rivals={("", 8): Rival(setting=(32.0, 3e-3), losses={3: 1.0, 9: 0.8})})
    added, lower = {"learning_rates": (1e-2,)}, {"learning_rates": (1e-3,)}
    for step, best in ((3, 1.0), (9, 0.8)):
        assert trials_to_stop(step, losses(best + FAR, **added), rungs, **added) == {"r8"}
        assert trials_to_stop(step, losses(best + NEAR, **added), rungs, **added) == set()
        assert trials_to_stop(step, losses(best - FAR, **added), rungs, **added) == set()
        assert trials_to_stop(step, losses(best + NEAR, **lower), rungs, **lower) == {"r8"}
    assert Rungs(steps=(3,)).trials_to_stop(3, planned(**added), losses(9.0, **added)) == {}


def test_halving_reason_names_the_losses() -> None:
    reasons = RUNGS.trials_to_stop(9, planned(), losses(1.0, 1.25, 1.5, 2.0))
    assert reasons["r8-lr0.0003"] == Message("trial.behind", loss=1.25, step=9, lowest=1.0)


@pytest.mark.parametrize(
    ("changes", "exits"),
    [
        ({}, True),
        ({"learning_rates": "auto"}, True),
        ({"learning_rates": (1e-4, 1e-3)}, False),
        ({"learning_rates": (1e-4,)}, False),
        ({"early_exit": False}, False),
    ],
)
def test_halving_needs_three_rates(changes: dict[str, object], exits: bool) -> None:
    spec = StudySpec.model_validate({"learning_rates": RATES, **changes})
    assert exits_early(spec) == exits
    assert bool(rung_steps(spec, 24)) == exits


def test_rungs_are_at_1_8_and_3_8_after_warmup() -> None:
    spec = StudySpec(learning_rates=RATES)
    assert rung_steps(spec, 24) == (3, 9)
    assert rung_steps(spec.model_copy(update={"warmup_steps": 8}), 24) == (10, 14)
    assert rung_steps(spec, 1) == ()
    assert rung_steps(spec.model_copy(update={"warmup_steps": 30}), 24) == ()


@pytest.mark.parametrize(
    ("changes", "total", "steps"),
    [
        ({}, 24, (0, 3, 9, 17, 24)),
        ({"early_exit": False}, 24, (0, 6, 12, 18, 24)),
        ({"early_exit": False}, 10, (0, 3, 6, 9, 10)),
        ({"eval_steps": 6}, 24, (0, 3, 6, 9, 12, 18, 24)),
        ({"eval_steps": 6, "learning_rates": (1e-3,)}, 24, (0, 6, 12, 18, 24)),
        ({}, 1, (0, 1)),
    ],
)
def test_evaluation_steps_include_start_rungs_and_end(
    changes: dict[str, object], total: int, steps: tuple[int, ...]
) -> None:
    spec = StudySpec.model_validate({"learning_rates": RATES, **changes})
    assert evaluation_steps(spec, total) == steps

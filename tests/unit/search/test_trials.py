import math
from typing import Any

import pytest

from lorascope.search.trials import differences, plan_trials
from lorascope.spec.fields.lora import AlphaRule
from lorascope.spec.schema import StudySpec


def test_trials_are_ordered_by_rank_rate_and_seed() -> None:
    trials = plan_trials(StudySpec(ranks=(8, 4), learning_rates=(3e-4, 5e-5), seeds=(1, 0)))
    assert [(trial.rank, trial.learning_rate, trial.seed) for trial in trials] == [
        (8, 3e-4, 1),
        (8, 3e-4, 0),
        (8, 5e-5, 1),
        (8, 5e-5, 0),
        (4, 3e-4, 1),
        (4, 3e-4, 0),
        (4, 5e-5, 1),
        (4, 5e-5, 0),
    ]
    assert len({trial.trial_id for trial in trials}) == len(trials)


@pytest.mark.parametrize(
    ("axes", "trial_id"),
    [
        ({}, "r128"),
        ({"learning_rates": (3e-4, 1e-3)}, "r128-lr0.0003"),
        ({"seeds": (1, 2)}, "r128"),
        ({"learning_rates": (3e-4, 1e-3), "seeds": (1, 2)}, "r128-lr0.0003"),
        ({"lora_alpha": (16, 0.5)}, "r128-a16"),
        ({"lora_alpha": (0.5, 16), "learning_rates": (3e-4, 1e-3), "seeds": (1, 2)}, "r128-a0.5-lr0.0003"),
        ({"lora_alpha": (16,)}, "r128"),
        ({"learning_rates": (1.0000000001e-3, 1e-3)}, "r128-lr0.0010000000001"),
    ],
)
def test_trial_id_names_axes_with_several_values(axes: dict[str, Any], trial_id: str) -> None:
    assert plan_trials(StudySpec(ranks=(128,), **axes))[0].trial_id == trial_id


@pytest.mark.parametrize(
    ("rule", "alpha", "scale"),
    [("fixed", 32.0, 32 / 64), ("rslora", 32.0, 32 / math.sqrt(64)), ("proportional", 256.0, 4.0)],
)
def test_alpha_rule_sets_alpha_and_scale(rule: AlphaRule, alpha: float, scale: float) -> None:
    (trial,) = plan_trials(StudySpec(ranks=(64,), alpha_rule=rule))
    assert (trial.lora_alpha, trial.scale) == (alpha, scale)


def test_alpha_can_be_given_for_each_rank() -> None:
    trials = plan_trials(StudySpec(ranks=(64, 16), lora_alpha={64: 32, 16: 8}, seeds=(0, 1)))
    assert [(trial.rank, trial.lora_alpha, trial.scale) for trial in trials[::2]] == [(64, 32, 0.5), (16, 8, 0.5)]
    rooted = plan_trials(StudySpec(ranks=(64, 16), lora_alpha={64: 32, 16: 8}, alpha_rule="rslora"))
    assert [trial.scale for trial in rooted] == [4, 2]


@pytest.mark.parametrize(("rule", "root"), [("fixed", 1), ("rslora", 4)])
def test_alpha_is_an_axis_beside_its_rule(rule: AlphaRule, root: float) -> None:
    trials = plan_trials(StudySpec(ranks=(16,), lora_alpha=(32, 8), alpha_rule=rule, learning_rates="auto"))
    assert [(trial.lora_alpha, trial.scale) for trial in trials[::3]] == [(32, 2 * root), (8, root / 2)]
    small, large = ([trial.learning_rate for trial in trials[at : at + 3]] for at in (3, 0))
    assert [one / other for one, other in zip(small, large, strict=True)] == pytest.approx([2.0] * 3, rel=0.05)


def test_differences_name_changed_fields() -> None:
    old = StudySpec(ranks=(8, 128))
    assert differences(old, old.model_copy()) == []
    new = old.model_copy(update={"ranks": (8, 256), "max_steps": 5})
    assert differences(old, new) == ["ranks: 8, 128 -> 8, 256", "max_steps: None -> 5"]

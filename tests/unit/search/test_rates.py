from typing import Literal

import pytest

from lorascope.search.rates import automatic_rates, next_rate
from lorascope.search.trials import plan_trials, planned_alphas, planned_rates
from lorascope.spec.fields.lora import AlphaRule
from lorascope.spec.schema import StudySpec


@pytest.mark.parametrize(("rule", "exponent"), [("fixed", 0.0), ("rslora", -0.25), ("proportional", -0.5)])
def test_automatic_rates_follow_rank_and_alpha_rule(rule: AlphaRule, exponent: float) -> None:
    spec = StudySpec(ranks=(4, 64), alpha_rule=rule, learning_rates="auto")
    small, large = (planned_rates(spec, rank, planned_alphas(spec, rank)[0]) for rank in (4, 64))
    for one, other in zip(small, large, strict=True):
        assert other / one == pytest.approx(16**exponent, rel=0.05)  # two digits of either are kept


def test_automatic_rates_are_a_factor_of_three_apart() -> None:
    assert automatic_rates(rank=8, scale=4.0) == (3.3e-4, 1e-3, 3e-3)
    assert automatic_rates(rank=8, scale=16.0) == (1.7e-4, 5e-4, 1.5e-3)


def test_automatic_rates_differ_by_rank() -> None:
    spec = StudySpec(ranks=(8, 128), alpha_rule="proportional", learning_rates="auto")
    assert [trial.trial_id for trial in plan_trials(spec)] == [
        "r8-lr0.00033", "r8-lr0.001", "r8-lr0.003", "r128-lr8.3e-05", "r128-lr0.00025", "r128-lr0.00075",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("tried", "side", "rate"),
    [
        ((1e-4, 3e-4, 1e-3), "above", 3.33333333333e-3),
        ((1e-3, 3e-4, 1e-4), "below", 3.33333333333e-5),
        ((1e-3, 3e-3), "above", 9e-3),
    ],
)
def test_next_rate_keeps_the_ratio_of_the_last_two(
    tried: tuple[float, ...], side: Literal["below", "above"], rate: float
) -> None:
    assert next_rate(tried, side) == rate

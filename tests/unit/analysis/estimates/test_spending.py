"""Alpha spending: levels of looks against a simulated random walk, and by hand."""

import numpy as np
import pytest
from scipy.stats import norm

from lorascope.analysis.estimates.looks import look_differences
from lorascope.analysis.estimates.losses import Floats
from lorascope.analysis.estimates.paired import LEVEL, SeedRows, Uncertain
from lorascope.analysis.estimates.spending import nominal_shares, spent

LOOKS = (0.3, 0.5, 0.7, 0.85, 1.0)


def test_one_look_at_all_data_spends_everything() -> None:
    assert nominal_shares([1.0]) == pytest.approx([1.0])


def test_the_first_look_spends_what_the_function_allows() -> None:
    assert nominal_shares([0.5])[0] == pytest.approx(spent(0.5)) == 0.125


def test_a_look_without_new_information_spends_nothing() -> None:
    _, second, third = nominal_shares([0.4, 0.4, 1.0])
    assert second == 0.0
    assert third == pytest.approx(nominal_shares([0.4, 1.0])[1])


@pytest.mark.parametrize("until", [2, 4, 5])
def test_a_random_walk_crosses_its_bounds_as_often_as_was_spent(until: int) -> None:
    information = np.array(LOOKS[:until])
    steps = np.diff([0, *information])
    walks = np.cumsum(np.random.default_rng(3).normal(size=(400_000, until)) * np.sqrt(steps), axis=1)
    bounds = norm.isf(LEVEL / 2 * np.array(nominal_shares(LOOKS)[:until]))
    crossed = (walks / np.sqrt(information) > bounds).any(axis=1).mean()
    wanted = LEVEL / 2 * spent(LOOKS[until - 1])
    assert crossed == pytest.approx(wanted, abs=4 * np.sqrt(wanted / len(walks)))


def test_a_share_widens_intervals_and_raises_chances_alike() -> None:
    """What is shown at a look is what its interval leaves out."""
    once = Uncertain(value=0.01, variance=1e-6, degrees=30)
    look = Uncertain(value=0.01, variance=1e-6, degrees=30, share=0.1)
    assert look.interval().high > once.interval().high
    assert look.chance_below(0.012) == pytest.approx(once.chance_below(0.012) / 0.1)
    limit = look.interval(above=LEVEL).high
    assert look.chance_below(limit) == pytest.approx(LEVEL)


@pytest.mark.parametrize("chance", [LEVEL, LEVEL / 2, LEVEL / 3, LEVEL / 6])
def test_shares_hold_at_every_level_that_a_correction_for_three_tests_uses(chance: float) -> None:
    information = np.linspace(0.3, 1.0, 8)
    assert crossing(information, chance, made_for=LEVEL / 6) <= chance * 1.03


def test_shares_made_for_one_test_do_not_hold_for_several() -> None:
    information = np.linspace(0.3, 1.0, 8)
    assert crossing(information, LEVEL / 6, made_for=LEVEL / 2) > LEVEL / 6 * 1.05


def crossing(information: Floats, chance: float, *, made_for: float) -> float:
    """Simulate how often a score passes its bound at some look, each tested at its share of a chance of error."""
    steps = np.sqrt(np.diff([0.0, *information]))
    scores = np.cumsum(np.random.default_rng(4).normal(size=(400_000, len(steps))) * steps, axis=1)
    bounds = norm.isf(chance * np.array(nominal_shares(information.tolist(), made_for)))
    return float((scores / np.sqrt(information) > bounds).any(axis=1).mean())


def test_looks_test_pairs_at_a_smaller_share_than_bounds() -> None:
    random = np.random.default_rng(1)
    rows = {rank: SeedRows(nats=random.normal(size=(3, 40)), target_tokens=np.ones(40)) for rank in (8, 64, 256)}
    found = [look[8, 64] for look in look_differences([rows] * 3, [0.5, 0.8, 1.0])]
    assert [one.share for one in found] == nominal_shares([0.5, 0.8, 1.0], LEVEL / 2)
    assert [one.pair_share for one in found] == nominal_shares([0.5, 0.8, 1.0], LEVEL / 6)
    assert found[-1].chance_within(0.0) > 2 * min(found[-1].chance_below(0.0), found[-1].turned().chance_below(0.0))

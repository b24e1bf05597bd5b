"""Alpha spending: levels of looks against a simulated random walk, and by hand."""

import numpy as np
import pytest
from scipy.stats import norm

from lorascope.analysis.estimates.paired import LEVEL, Uncertain
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

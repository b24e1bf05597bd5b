from collections.abc import Sequence
from typing import Any

import pytest

from lorascope.records import TrialRecord
from lorascope.search.rounds import TIE_NATS, next_trials
from lorascope.spec.schema import StudySpec

RATES = (1e-3, 2e-3, 4e-3)


def spec_of(**changes: Any) -> StudySpec:
    return StudySpec.model_validate({"ranks": (8, 64), "learning_rates": RATES, "seeds": (0, 1), **changes})


def names(trials: Sequence[TrialRecord]) -> list[str]:
    return [trial.trial_id for trial in trials]


def course(spec: StudySpec, losses: dict[str, float]) -> list[list[str]]:
    """The groups of a study whose finished trials end with these losses."""
    groups: list[list[str]] = []
    before: list[TrialRecord] = []
    while trials := next_trials(spec, before, losses):
        groups.append(names(trials))
        before += trials
        assert len(groups) < 9
    return groups


def test_rounds_search_rates_with_the_first_seed() -> None:
    spec = spec_of()
    losses = {"r8-lr0.002": 1.0, "r64-lr0.002": 1.0, "r64-lr0.001": 1.0 + TIE_NATS / 2}
    grid = [f"r{rank}-lr{rate!r}" for rank in (8, 64) for rate in RATES]
    assert course(spec, losses) == [grid, ["r8-lr0.002-s1", "r64-lr0.001-s1", "r64-lr0.002-s1"]]


def test_rounds_extend_the_rates_of_the_best_alpha_and_keep_ties_of_any() -> None:
    spec = spec_of(ranks=(8,), lora_alpha=(16, 64), learning_rates=(1e-3, 2e-3), max_grid_extensions=1)
    losses = {"r8-a16-lr0.002": 1.0, "r8-a64-lr0.001": 1.0 + TIE_NATS / 2, "r8-a64-lr0.002": 2.0}
    assert course(spec, losses) == [
        [f"r8-a{alpha}-lr{rate!r}" for alpha in (16, 64) for rate in (1e-3, 2e-3)],
        ["r8-a16-lr0.004"],
        ["r8-a16-lr0.002-s1", "r8-a64-lr0.001-s1"],
    ]


def test_rounds_of_sets_of_targets_take_each_set_the_course_it_takes_alone() -> None:
    sets: dict[str, Any] = {"ranks": (8,), "target_modules": (("q_proj", "v_proj"), "all-linear")}
    losses = {"r8-lr0.002": 1.0, "r8-lr0.001": 1.5}, {"r8-lr0.004": 1.0, "r8-lr0.008": 0.9}

    def named(name: str, one: str) -> str:
        return name.replace("r8", f"r8-{one}")

    both = {
        named(name, one): loss
        for one, own in zip(("q_proj,v_proj", "all-linear"), losses, strict=True)
        for name, loss in own.items()
    }
    found = [name for group in course(spec_of(**sets), both) for name in group]
    for one, own in zip(("q_proj,v_proj", "all-linear"), losses, strict=True):
        alone = [named(name, one) for group in course(spec_of(ranks=(8,)), own) for name in group]
        assert [name for name in found if f"-{one}-" in name] == alone
    assert course(spec_of(**sets), both)[1:] == [
        ["r8-all-linear-lr0.008"], ["r8-all-linear-lr0.016"],
        ["r8-q_proj,v_proj-lr0.002-s1", "r8-all-linear-lr0.008-s1"],
    ]  # fmt: skip


def test_rounds_without_early_exit_train_all_seeds_at_once() -> None:
    for changes in ({"early_exit": False}, {"learning_rates": (1e-3,)}):
        spec = spec_of(**changes)
        first = next_trials(spec, [], {})
        assert len(first) == 2 * 2 * len(spec.learning_rates)
        inner = dict.fromkeys([name for name in names(first) if "lr" not in name or "lr0.002" in name], 1.0)
        assert next_trials(spec, first, inner) == ()


def test_rounds_extend_the_grid_up_to_the_limit() -> None:
    """For the rank where it lies at the edge; the last one added is again the best."""
    spec = spec_of(seeds=(0,))
    losses = {"r8-lr0.004": 1.0, "r8-lr0.008": 0.9, "r8-lr0.016": 0.8, "r64-lr0.002": 1.0}
    assert course(spec, losses)[1:] == [["r8-lr0.008"], ["r8-lr0.016"]]
    assert course(spec_of(seeds=(0,), max_grid_extensions=1), losses)[1:] == [["r8-lr0.008"]]
    assert course(spec_of(seeds=(0,), max_grid_extensions=0), losses)[1:] == []


def test_rounds_limit_each_side_of_the_grid() -> None:
    spec = spec_of(ranks=(8,), seeds=(0,), max_grid_extensions=1)
    assert course(spec, {"r8-lr0.001": 1.0, "r8-lr0.0005": 0.9})[1:] == [["r8-lr0.0005"]]
    assert course(spec, {"r8-lr0.004": 1.0, "r8-lr0.008": 1.1})[1:] == [["r8-lr0.008"]]


def test_rounds_stop_extending_after_a_stopped_or_diverged_rate() -> None:
    spec = spec_of(ranks=(8,), seeds=(0, 1))
    assert course(spec, {"r8-lr0.004": 1.0})[1:] == [["r8-lr0.008"], ["r8-lr0.004-s1"]]


def test_rounds_extend_two_rates_at_every_seed() -> None:
    two = spec_of(ranks=(8,), learning_rates=(1e-3, 2e-3))
    losses = {"r8-lr0.001": 2.0, "r8-lr0.001-s1": 2.0, "r8-lr0.002": 1.0, "r8-lr0.002-s1": 1.0}
    assert course(two, losses)[1:] == [["r8-lr0.004", "r8-lr0.004-s1"]]
    one = spec_of(ranks=(8,), learning_rates=(1e-3,))
    assert len(course(one, {"r8": 1.0, "r8-s1": 1.0})) == 1


def test_rounds_ignore_a_best_rate_that_lost_a_seed() -> None:
    spec = spec_of(ranks=(8,), learning_rates=(1e-3, 2e-3))
    losses = {"r8-lr0.001": 2.0, "r8-lr0.001-s1": 2.0, "r8-lr0.002": 1.0}
    assert course(spec, losses)[1:] == [["r8-lr0.0005", "r8-lr0.0005-s1"], ["r8-lr0.00025", "r8-lr0.00025-s1"]][:1]


def test_rounds_leave_a_rank_without_a_finished_trial() -> None:
    assert course(spec_of(), {}) == [names(next_trials(spec_of(), [], {}))]


@pytest.mark.parametrize("rates", [(1e-300, 1e-100), (1e-3, 1e-3 * (1 + 1e-15))])
def test_rounds_add_only_new_rates(rates: tuple[float, float]) -> None:
    spec = spec_of(ranks=(8,), seeds=(0,), learning_rates=rates)
    assert len(course(spec, {f"r8-lr{rates[0]!r}": 1.0, f"r8-lr{rates[1]!r}": 2.0})) == 1

"""Recommendations from differences written by hand, and their coherence over made-up studies."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from lorascope.analysis.estimates.paired import LEVEL
from lorascope.analysis.summarize import summarize_data
from lorascope.analysis.summary import RankSection, StudySummary
from lorascope.analysis.verdict.claims import claims
from lorascope.analysis.verdict.decide import decide_verdict
from lorascope.analysis.verdict.posterior import standings
from lorascope.analysis.verdict.recommend import Grounds, recommend
from lorascope.analysis.verdict.schema import RecommendationSection
from lorascope.analysis.verdict.sensitivity import needed_tolerance
from lorascope.message import Message
from lorascope.spec.fields.answer import Preference
from made_up_studies import Truth, studies
from support.comparisons import SEEDS, Excesses, compared
from support.messages import codes, values_of
from verdict_simulation import scenarios

TOLERANCE = 0.005
BEST = (0.0, 0.001)
WORSE = (0.03, 0.002)
EQUAL = (0.001, 0.001)
OPEN = (0.004, 0.004)
SECONDS = {8: 0.4, 64: 0.5, 128: 0.7, 256: 0.9}


def part(rank: int, seconds: float | None) -> RankSection:
    return RankSection(
        rank=rank, lora_alpha=32.0, best_learning_rate=1e-4, seeds=1, eval_loss=1.0, eval_loss_ci95=(0.9, 1.1),
        excess_loss=0.0, excess_loss_ci95=(0.0, 0.0), train_loss=1.0, trainable_parameters=rank,
        saved_rank=rank, adapter_bytes=rank,
        training_state_bytes=4_000_000 * rank, step_seconds=seconds, runtime_seconds=None, tokens_per_second=None,
        peak_memory_bytes=None, memory=None,
    )  # fmt: skip


def advised(
    excesses: Excesses,
    *,
    seconds: Mapping[int, float | None] = SECONDS,
    seeds: tuple[int, ...] = SEEDS,
    prefer: Preference = "value",
    allowed: tuple[int, ...] = (),
    steady: bool = True,
) -> RecommendationSection:
    comparison = compared(excesses, seeds)
    grounds = Grounds(
        comparison=comparison,
        ranks={rank: part(rank, seconds[rank]) for rank in allowed or excesses},
        tests=claims(comparison.excess, comparison.differences, TOLERANCE),
        standings=standings(comparison, TOLERANCE),
        verdict=decide_verdict(comparison, TOLERANCE, falling=False, rows=200),
        tolerance=TOLERANCE,
        steady=steady,
    )
    return recommend(grounds, prefer)


def named(advice: RecommendationSection) -> tuple[int | None, ...]:
    return advice.loss.rank, advice.value.rank, advice.time.rank, advice.memory.rank


def test_each_need_names_what_it_says() -> None:
    advice = advised({8: WORSE, 64: EQUAL, 128: BEST})
    assert named(advice) == (128, 64, 8, 8)
    assert (advice.loss.evidence, advice.value.evidence, advice.memory.evidence) == ("proven", "proven", "unproven")
    assert values_of(advice.time.reason, "advice.step_alone") == {"step_seconds": 0.4}
    assert values_of(advice.memory.reason, "advice.state") == {"size": 32_000_000}
    assert values_of(advice.memory.reason, "advice.above")["best"] == 128
    assert advice.memory.chance == 0
    assert advice.use == advice.value


def test_undecided_study_weighs_loss_against_size() -> None:
    advice = advised({8: (0.002, 0.004), 64: OPEN, 128: BEST})
    assert named(advice) == (128, 8, 8, 8)
    assert "advice.least_regret" in codes(advice.value.reason)
    assert advice.value.evidence == "unproven"
    assert advice.value.chance == pytest.approx(0.7, abs=0.1)
    tolerance = values_of(advice.use.change, "change.enough_from")["tolerance"]
    assert tolerance == pytest.approx(0.002 + 1.96 * 0.004, rel=0.05)


def test_rank_that_is_likely_enough_says_with_which_chance() -> None:
    advice = advised({8: (0.002, 0.003), 128: (0.0, 0.003)})
    assert advice.value.rank == 8
    assert advice.value.evidence == "likely"
    # P(Z < (0.005 - 0.002) / 0.003), by the normal distribution
    assert advice.value.chance == pytest.approx(0.841, abs=0.02)


@pytest.mark.parametrize(("prefer", "rank"), [("loss", 128), ("value", 64), ("time", 8), ("memory", 8)])
def test_preferred_need_decides_which_rank_to_use(prefer: Preference, rank: int) -> None:
    assert advised({8: WORSE, 64: EQUAL, 128: BEST}, prefer=prefer).use.rank == rank


def test_preferred_time_without_times_falls_back_to_value() -> None:
    missing = advised({8: WORSE, 64: EQUAL, 128: BEST}, seconds=dict.fromkeys(SECONDS), prefer="time")
    assert missing.time.rank is None
    assert missing.time.reason == Message("advice.no_times")
    assert missing.use.rank == missing.value.rank == 64


def test_unsteady_times_give_no_advice() -> None:
    advice = advised({8: WORSE, 64: EQUAL, 128: BEST}, steady=False)
    assert (advice.time.rank, advice.time.reason) == (None, Message("advice.unsteady_times"))


def test_one_seed_proves_nothing() -> None:
    advice = advised({8: WORSE, 64: EQUAL, 128: BEST}, seeds=(0,))
    assert named(advice) == (128, 64, 8, 8)
    assert {advice.loss.evidence, advice.value.evidence} == {"unproven"}
    assert advice.value.chance is None
    assert advice.use.change == ()
    assert "advice.smallest_enough_in_one_seed" in codes(advice.value.reason)


def test_recommendation_of_a_single_rank() -> None:
    advice = advised({8: BEST}, seeds=(0,))
    assert named(advice) == (8, 8, 8, 8)
    assert advice.use.reason == Message("advice.only_rank")
    assert advice.use.evidence is None


def test_only_allowed_ranks_are_recommended() -> None:
    advice = advised({8: WORSE, 64: EQUAL, 128: BEST}, allowed=(8,))
    assert named(advice) == (8, 8, 8, 8)
    assert "advice.lowest_allowed" in codes(advice.loss.reason)
    assert values_of(advice.loss.reason, "advice.above")["excess"][0] == pytest.approx(0.03)


def test_needed_tolerance_is_where_adequacy_begins() -> None:
    comparison = compared({8: (0.02, 0.005), 64: (0.002, 0.001), 128: (0.0, 0.001)})
    for rank in comparison.excess:
        needed = needed_tolerance(comparison, rank)
        assert needed is not None
        assert claims(comparison.excess, comparison.differences, needed + 1e-9)[rank].is_adequate
        assert needed < 1e-9 or not claims(comparison.excess, comparison.differences, needed - 1e-9)[rank].is_adequate
    # the last of the corrected tests is a single one, so that adequacy begins where a one-sided interval ends
    limit = comparison.differences[8, 128].interval(above=LEVEL).high
    assert needed_tolerance(comparison, 8) == pytest.approx(limit, abs=1e-6)


def test_standings_are_probabilities_that_add_up() -> None:
    """With no tolerance at all exactly one rank is the lowest."""
    found = standings(compared({8: OPEN, 64: EQUAL, 128: BEST}), 0.0)
    assert sum(standing.chance for standing in found.values()) == pytest.approx(1, abs=1e-9)
    sure = standings(compared({8: (0.03, 0.0), 128: (0.0, 0.0)}), TOLERANCE)
    assert (sure[8].chance, sure[128].chance) == (0.0, 1.0)
    assert sure[8].regret == pytest.approx(0.03)


@pytest.mark.parametrize("name", sorted(scenarios())[::7])
def test_needs_agree_with_headline_and_table(name: str) -> None:
    truth = replace(scenarios()[name], rows=min(100, scenarios()[name].rows))
    for study in studies(truth, 8, 17):
        _check_coherence(summarize_data(study.data))


def _check_coherence(summary: StudySummary) -> None:
    advice, losses = summary.recommendation, {part.rank: part.excess_loss for part in summary.ranks}
    proven = {found.rank for found in summary.verdict.claims if found.adequate_p <= 0.05}
    assert losses[advice.loss.rank or 0] == 0
    assert advice.memory.rank == min(losses)
    assert advice.use.rank == advice.value.rank
    if summary.verdict.kind in ("adequate", "no_measurable_difference"):
        assert advice.use.rank == min(proven)
    for need in (advice.use, advice.loss, advice.value, advice.memory):
        above = {} if need.rank == advice.loss.rank else values_of(need.reason, "advice.above")
        assert above.get("excess", (0.0,))[0] == losses[need.rank or 0]
        if need.evidence == "proven":
            assert need.rank in proven
        assert need.chance is None or 0 <= need.chance <= 1


def test_advice_beats_folklore() -> None:
    """Over made-up studies the nats lost by following the advice are fewer than by any rule of thumb."""
    for effect in (0.0, 0.01, 0.05):
        truth = Truth(floors={8: 1.0 + effect, 64: 1.0, 256: 1.0 + effect / 2}, seeds=2, rows=100)
        lost: dict[str, list[float]] = {"advice": [], "smallest": [], "largest": []}
        for study in studies(truth, 20, 3):
            use = summarize_data(study.data).recommendation.use.rank
            lowest = min(study.floors.values())
            for rule, rank in (("advice", use), ("smallest", 8), ("largest", 256)):
                lost[rule].append(study.floors[rank or 0] - lowest)
        assert sum(lost["advice"]) <= min(sum(lost["smallest"]), sum(lost["largest"])) + 20 * TOLERANCE / 5

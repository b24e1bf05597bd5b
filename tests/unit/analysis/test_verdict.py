"""Verdicts and recommendations from intervals written by hand."""

from dataclasses import replace

import pytest

from lorascope.analysis.estimates import Estimate
from lorascope.analysis.ranks import Comparison
from lorascope.analysis.recommend import recommend
from lorascope.analysis.summary import RankPart, RecommendationPart
from lorascope.analysis.verdict import adequate_ranks, judge, still_falling, undecided_ranks
from lorascope.records import EvalRecord

TOLERANCE = 0.005


def compared(excesses: dict[int, tuple[float, float, float]]) -> Comparison:
    """Build a comparison from (value, low, high) of each rank's excess; the best has zeros."""
    excess = {rank: Estimate(value=value, low=low, high=high) for rank, (value, low, high) in excesses.items()}
    best = next(rank for rank, estimate in excess.items() if estimate.high == estimate.low == 0)
    loss = {rank: Estimate(value=1 + e.value, low=0.9 + e.value, high=1.1 + e.value) for rank, e in excess.items()}
    return Comparison(step=80, best=best, loss=loss, excess=excess)


BEST = (0.0, 0.0, 0.0)
WORSE = (0.03, 0.02, 0.04)
EQUAL = (0.001, -0.001, 0.003)
OPEN = (0.004, -0.004, 0.012)
MAYBE_LOWER = (0.004, -0.008, 0.016)


@pytest.mark.parametrize(
    ("excesses", "kind", "names"),
    [
        ({8: WORSE, 128: BEST, 256: EQUAL}, "adequate", "Rank 128 is the smallest adequate rank"),
        ({8: WORSE, 128: EQUAL, 256: BEST}, "adequate", "Rank 128 is enough"),
        ({8: EQUAL, 128: EQUAL, 256: BEST}, "no_measurable_difference", "rank 8, is enough"),
        ({8: OPEN, 128: EQUAL, 256: BEST}, "too_short", "whether rank 8 is enough"),
        ({8: OPEN, 128: EQUAL, 256: BEST}, "too_short", "Rank 128 is the smallest rank shown to be enough"),
        ({8: OPEN, 128: OPEN, 256: BEST}, "too_short", "whether ranks 8 and 128 are enough"),
        ({8: WORSE, 128: BEST, 256: OPEN}, "adequate", "Rank 128 is the smallest adequate rank"),
        ({8: BEST, 256: MAYBE_LOWER}, "too_short", "whether ranks 8 and 256 are enough"),
        ({8: BEST}, "nothing_to_compare", "Only rank 8"),
        (
            {8: WORSE, 16: (0.02, 0.01, 0.03), 256: BEST},
            "adequate",
            "16 comes closest: it exceeds the lowest by 0.0200",
        ),
    ],
)
def test_the_verdict_follows_the_intervals(excesses: dict, kind: str, names: str) -> None:
    verdict = judge(compared(excesses), TOLERANCE, falling=False, rows=200)
    assert verdict.kind == kind
    assert names in verdict.text


def test_a_difference_that_could_not_be_shown_is_not_equality() -> None:
    wide = compared({8: OPEN, 256: BEST})
    assert adequate_ranks(wide, TOLERANCE) == [256]
    assert undecided_ranks(wide, TOLERANCE) == [8]
    assert judge(wide, TOLERANCE, falling=False, rows=200).kind == "too_short"


def test_a_loss_that_still_falls_is_too_short_even_where_intervals_are_narrow() -> None:
    assert judge(compared({8: WORSE, 128: BEST}), TOLERANCE, falling=True, rows=200).kind == "too_short"


def test_a_handful_of_rows_or_steps_supports_no_verdict() -> None:
    clear = compared({8: WORSE, 128: BEST})
    few_rows = judge(clear, TOLERANCE, falling=False, rows=4)
    few_steps = judge(replace(clear, step=3), TOLERANCE, falling=False, rows=200)
    assert few_rows.kind == few_steps.kind == "too_short"
    assert "80 steps, 4 held-out rows" in few_rows.text
    assert "3 steps, 200 held-out rows" in few_steps.text


def test_the_lowest_estimate_is_no_proof_of_being_the_lowest() -> None:
    assert adequate_ranks(compared({8: BEST, 256: MAYBE_LOWER}), TOLERANCE) == []


@pytest.mark.parametrize(
    ("losses", "falling"),
    [
        ((3.0, 2.5, 2.0), True),
        ((3.0, 2.0, 1.9), False),
        ((3.0, 2.9, 2.0), True),
        ((3.0, 2.0), False),
        ((3.0, 3.1, 3.2), False),
        ((3.0, 2.999, 2.997), False),
    ],
)
def test_still_falling_compares_the_last_pace_with_the_average(losses: tuple[float, ...], falling: bool) -> None:
    records = [
        EvalRecord(trial_id="t", step=10 * n, example_nats=(loss,), example_target_tokens=(1,), seconds=0.1)
        for n, loss in enumerate(losses)
    ]
    assert still_falling(records, TOLERANCE) is falling


def part(rank: int, seconds: float | None) -> RankPart:
    return RankPart(
        rank=rank, lora_alpha=32.0, best_learning_rate=1e-4, seeds=1, eval_loss=1.0, eval_loss_ci95=(0.9, 1.1),
        excess_loss=0.0, excess_loss_ci95=(0.0, 0.0), train_loss=1.0, trainable_parameters=rank, adapter_bytes=rank,
        training_state_bytes=4_000_000 * rank, step_seconds=seconds, runtime_seconds=None, tokens_per_second=None,
        peak_memory_bytes=None, memory=None,
    )  # fmt: skip


def advised(excesses: dict, seconds: dict[int, float | None]) -> RecommendationPart:
    comparison = compared(excesses)
    verdict = judge(comparison, TOLERANCE, falling=False, rows=200)
    return recommend(comparison, {rank: part(rank, seconds[rank]) for rank in excesses}, verdict, TOLERANCE)


def test_the_lowest_loss_and_the_least_cost_can_be_two_ranks() -> None:
    slightly_worse = (0.003, 0.002, 0.0045)
    advice = advised({8: WORSE, 64: slightly_worse, 128: BEST}, {8: 0.4, 64: 0.5, 128: 0.7})
    assert (advice.quality.rank, advice.efficient.rank, advice.constrained.rank) == (128, 64, 64)
    assert "0.50 s a step alone" in advice.efficient.reason
    assert "256.0 MB" in advice.constrained.reason


def test_an_open_question_is_settled_by_what_the_wish_allows() -> None:
    maybe = (0.008, 0.002, 0.014)
    advice = advised({8: maybe, 64: OPEN, 128: BEST}, {8: 0.4, 64: 0.5, 128: 0.7})
    assert (advice.quality.rank, advice.efficient.rank, advice.constrained.rank) == (64, 64, 8)
    assert "0.0040 (95% interval -0.0040 to 0.0120)" in advice.quality.reason
    assert "32.0 MB" in advice.constrained.reason


def test_the_lowest_loss_is_the_quality_when_all_smaller_ranks_are_worse() -> None:
    advice = advised({8: WORSE, 128: BEST, 256: EQUAL}, {8: 0.4, 128: 0.5, 256: 0.7})
    assert advice.quality.rank == advice.constrained.rank == 128
    assert "every smaller rank compared is measurably above it" in advice.quality.reason


def test_a_larger_rank_is_not_efficient_for_being_measured_in_a_quieter_moment() -> None:
    advice = advised({8: EQUAL, 128: BEST}, {8: 0.9, 128: 0.5})
    assert advice.efficient.rank == 8
    assert "0.90 s a step alone" in advice.efficient.reason


def test_without_times_the_smallest_adequate_rank_is_efficient() -> None:
    advice = advised({8: WORSE, 64: EQUAL, 128: BEST}, {8: 0.4, 64: None, 128: None})
    assert advice.efficient.rank == 64
    assert "times were not measured" in advice.efficient.reason


def test_a_run_too_short_recommends_by_the_estimate_and_says_so() -> None:
    advice = advised({8: OPEN, 128: BEST}, {8: 0.4, 128: 0.5})
    assert advice.efficient.rank == 8
    assert "by the estimate alone" in advice.efficient.reason

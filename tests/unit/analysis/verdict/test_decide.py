"""Verdicts and recommendations from differences written by hand."""

from dataclasses import replace

import pytest

from lorascope.analysis.summary import RankSection, RecommendationSection
from lorascope.analysis.verdict.claims import claims
from lorascope.analysis.verdict.decide import decide_verdict, still_falling
from lorascope.analysis.verdict.recommend import recommend
from lorascope.message import Message
from lorascope.records import EvalRecord
from lorascope.text.say import say
from support.sequences import SEEDS, Excesses, compared

TOLERANCE = 0.005
BEST = (0.0, 0.001)
WORSE = (0.03, 0.002)
EQUAL = (0.001, 0.001)
SLIGHTLY_WORSE = (0.003, 0.0005)
OPEN = (0.004, 0.004)
NEAR_TOLERANCE = (0.007, 0.002)


@pytest.mark.parametrize(
    ("excesses", "kind", "names"),
    [
        ({8: WORSE, 128: BEST, 256: EQUAL}, "adequate", "Rank 128 is the smallest adequate rank (p < 0.001)"),
        ({8: WORSE, 128: EQUAL, 256: BEST}, "adequate", "Rank 128 is enough (p < 0.001)"),
        ({8: EQUAL, 128: EQUAL, 256: BEST}, "no_measurable_difference", "between ranks 8 to 256"),
        ({8: EQUAL, 128: EQUAL, 256: BEST}, "no_measurable_difference", "rank 8, is enough"),
        ({8: SLIGHTLY_WORSE, 256: (0.0, 0.0)}, "adequate", "above another rank at all is shown too"),
        ({8: OPEN, 128: EQUAL, 256: BEST}, "too_short", "whether rank 8 is enough"),
        ({8: OPEN, 128: EQUAL, 256: BEST}, "too_short", "Rank 128 is the smallest rank shown to be enough"),
        ({8: OPEN, 128: OPEN, 256: BEST}, "too_short", "whether ranks 8 and 128 are enough"),
        ({8: NEAR_TOLERANCE, 128: BEST}, "adequate", "That rank 8 is not enough is likely, but not shown."),
        ({8: WORSE, 128: BEST, 256: OPEN}, "adequate", "Rank 128 is the smallest adequate rank"),
        ({8: BEST, 256: (0.004, 0.006)}, "too_short", "whether ranks 8 and 256 are enough"),
        ({8: BEST}, "nothing_to_compare", "Only rank 8"),
        ({8: WORSE, 16: (0.02, 0.002), 256: BEST}, "adequate", "16 comes closest: it exceeds the lowest by 0.0200"),
    ],
)
def test_the_verdict_follows_the_tests(excesses: Excesses, kind: str, names: str) -> None:
    verdict = decide_verdict(compared(excesses), TOLERANCE, falling=False, rows=200)
    assert verdict.kind == kind
    assert names in say(verdict.text)


def test_a_difference_that_could_not_be_shown_is_not_equality() -> None:
    wide = compared({8: OPEN, 256: BEST})
    shown = claims(wide.excess, wide.differences, TOLERANCE)
    assert [rank for rank, found in shown.items() if found.is_adequate] == [256]
    assert not any(found.is_inadequate or found.is_worse for found in shown.values())
    assert decide_verdict(wide, TOLERANCE, falling=False, rows=200).kind == "too_short"


def test_the_lowest_estimate_is_no_proof_of_being_the_lowest() -> None:
    unsure = compared({8: BEST, 256: (0.004, 0.006)})
    assert not any(found.is_adequate for found in claims(unsure.excess, unsure.differences, TOLERANCE).values())


def test_rank_matters_where_a_difference_is_shown_over_seeds() -> None:
    def matters(excesses: Excesses, seeds: tuple[int, ...] = SEEDS) -> bool | None:
        return decide_verdict(compared(excesses, seeds), TOLERANCE, falling=False, rows=200).rank_matters

    assert matters({8: WORSE, 256: BEST}) is True
    assert matters({8: OPEN, 256: BEST}) is False
    assert matters({8: WORSE, 256: BEST}, seeds=(4,)) is None
    assert decide_verdict(compared({8: WORSE, 256: BEST}), TOLERANCE, falling=True, rows=200).rank_matters is None


def test_one_seed_speaks_for_itself_only() -> None:
    one = decide_verdict(compared({8: WORSE, 256: BEST}, seeds=(4,)), TOLERANCE, falling=False, rows=200)
    assert (one.kind, one.seeds) == ("adequate", 1)
    assert say(one.text).startswith("In seed 4 alone, rank 256 is the smallest adequate rank")
    assert "not of seeds" in say(one.text)
    several = decide_verdict(compared({8: WORSE, 256: BEST}), TOLERANCE, falling=False, rows=200)
    assert "and of seeds (3 seeds)" in say(several.text)


def test_seeds_are_asked_for_where_they_limit_the_verdict() -> None:
    for degrees, remedy in ((4, "Run more seeds."), (199, "Hold out more rows")):
        comparison = compared({8: OPEN, 256: BEST}, degrees=degrees)
        assert remedy in say(decide_verdict(comparison, TOLERANCE, falling=False, rows=200).text)


def test_p_values_are_shown_for_every_rank() -> None:
    parts = decide_verdict(compared({8: WORSE, 64: EQUAL, 256: BEST}), TOLERANCE, falling=False, rows=200).claims
    assert [part.rank for part in parts] == [8, 64, 256]
    assert [part.adequate_p <= 0.05 for part in parts] == [False, True, True]
    assert [part.inadequate_p <= 0.05 for part in parts] == [True, False, False]
    assert [part.worse_p <= 0.05 for part in parts] == [True, False, False]


def test_a_loss_that_still_falls_is_too_short_even_where_intervals_are_narrow() -> None:
    assert decide_verdict(compared({8: WORSE, 128: BEST}), TOLERANCE, falling=True, rows=200).kind == "too_short"


def test_a_handful_of_rows_or_steps_supports_no_verdict() -> None:
    clear = compared({8: WORSE, 128: BEST})
    few_rows = decide_verdict(clear, TOLERANCE, falling=False, rows=4)
    few_steps = decide_verdict(replace(clear, step=3), TOLERANCE, falling=False, rows=200)
    assert few_rows.kind == few_steps.kind == "too_short"
    assert "80 steps, 4 held-out rows" in say(few_rows.text)
    assert "3 steps, 200 held-out rows" in say(few_steps.text)


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


def test_the_noise_floor_in_words() -> None:
    noise = Message("verdict.noise_floor", pairs=1, typical=0.0021)
    assert "0.0021 nats a token apart (root mean square of 1 pair)" in say(noise)


def part(rank: int, seconds: float | None) -> RankSection:
    return RankSection(
        rank=rank, lora_alpha=32.0, best_learning_rate=1e-4, seeds=1, eval_loss=1.0, eval_loss_ci95=(0.9, 1.1),
        excess_loss=0.0, excess_loss_ci95=(0.0, 0.0), train_loss=1.0, trainable_parameters=rank, adapter_bytes=rank,
        training_state_bytes=4_000_000 * rank, step_seconds=seconds, runtime_seconds=None, tokens_per_second=None,
        peak_memory_bytes=None, memory=None,
    )  # fmt: skip


def advised(
    excesses: Excesses, seconds: dict[int, float | None], seeds: tuple[int, ...] = SEEDS
) -> RecommendationSection:
    comparison = compared(excesses, seeds)
    verdict = decide_verdict(comparison, TOLERANCE, falling=False, rows=200)
    return recommend(comparison, {rank: part(rank, seconds[rank]) for rank in excesses}, verdict, TOLERANCE)


def test_the_lowest_loss_and_the_least_cost_can_be_two_ranks() -> None:
    advice = advised({8: WORSE, 64: SLIGHTLY_WORSE, 128: (0.0, 0.0005)}, {8: 0.4, 64: 0.5, 128: 0.7})
    assert (advice.quality.rank, advice.efficient.rank, advice.constrained.rank) == (128, 64, 64)
    assert "0.50 s a step alone" in advice.efficient.reason
    assert "256.0 MB" in advice.constrained.reason


def test_an_open_question_is_settled_by_what_the_wish_allows() -> None:
    maybe = (0.008, 0.004)
    advice = advised({8: maybe, 64: OPEN, 128: BEST}, {8: 0.4, 64: 0.5, 128: 0.7})
    assert (advice.quality.rank, advice.efficient.rank, advice.constrained.rank) == (8, 64, 8)
    assert "0.0080 (95% interval 0.0002 to 0.0158)" in advice.quality.reason
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


def test_what_one_seed_shows_is_advised_as_such() -> None:
    advice = advised({8: WORSE, 64: EQUAL, 128: BEST}, {8: 0.4, 64: 0.5, 128: 0.6}, seeds=(0,))
    assert advice.efficient.reason.startswith("smallest rank shown, in one seed, to be within")


def test_a_run_too_short_recommends_by_the_estimate_and_says_so() -> None:
    advice = advised({8: OPEN, 128: BEST}, {8: 0.4, 128: 0.5})
    assert advice.efficient.rank == 8
    assert "by the estimate alone" in advice.efficient.reason


def test_of_a_single_rank_nothing_is_said_to_be_shown() -> None:
    advice = advised({8: BEST}, {8: 0.4}, seeds=(0,))
    only = "the only rank with a held-out loss"
    assert advice.quality.reason == only
    assert advice.efficient.reason == f"{only}; 0.40 s a step alone"
    assert advice.constrained.reason == f"{only}; its adapter, gradient and optimizer take 32.0 MB"

"""Verdicts and recommendations from differences written by hand."""

from dataclasses import replace

import pytest

from lorascope.analysis.verdict.claims import claims
from lorascope.analysis.verdict.decide import decide_verdict, still_falling
from lorascope.records import EvalRecord
from support.comparisons import SEEDS, Excesses, compared
from support.messages import codes, values_of

TOLERANCE = 0.005
BEST = (0.0, 0.001)
WORSE = (0.03, 0.002)
EQUAL = (0.001, 0.001)
SLIGHTLY_WORSE = (0.003, 0.0005)
OPEN = (0.004, 0.004)
NEAR_TOLERANCE = (0.007, 0.002)


SURE = pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("excesses", "kind", "code", "values"),
    [
        ({8: WORSE, 128: BEST, 256: EQUAL}, "adequate", "adequate_and_lowest", {"rank": 128, "p": SURE}),
        ({8: WORSE, 128: EQUAL, 256: BEST}, "adequate", "adequate", {"rank": 128, "best": 256, "p": SURE}),
        ({8: EQUAL, 128: EQUAL, 256: BEST}, "no_measurable_difference", "equivalent", {"first": 8, "last": 256}),
        ({8: SLIGHTLY_WORSE, 256: (0.0, 0.0)}, "adequate", "above_another", {}),
        ({8: OPEN, 128: EQUAL, 256: BEST}, "too_short", "unsettled", {"ranks": (8,)}),
        ({8: OPEN, 128: EQUAL, 256: BEST}, "too_short", "smallest_shown", {"rank": 128}),
        ({8: OPEN, 128: OPEN, 256: BEST}, "too_short", "unsettled", {"ranks": (8, 128)}),
        ({8: NEAR_TOLERANCE, 128: BEST}, "adequate", "not_shown", {"ranks": (8,)}),
        ({8: WORSE, 128: BEST, 256: OPEN}, "adequate", "adequate_and_lowest", {"rank": 128}),
        ({8: BEST, 256: (0.004, 0.006)}, "too_short", "unsettled", {"ranks": (8, 256)}),
        ({8: BEST}, "nothing_to_compare", "one_rank", {"rank": 8}),
        ({8: WORSE, 16: (0.02, 0.002), 256: BEST}, "adequate", "closest_smaller", {"rank": 16}),
    ],
)
def test_the_verdict_follows_the_tests(excesses: Excesses, kind: str, code: str, values: dict[str, object]) -> None:
    verdict = decide_verdict(compared(excesses), TOLERANCE, falling=False, rows=200)
    assert verdict.kind == kind
    found = values_of(verdict.text, f"verdict.{code}")
    assert {name: found[name] for name in values} == values


def test_the_closest_smaller_rank_is_named_with_its_excess() -> None:
    verdict = decide_verdict(compared({8: WORSE, 16: (0.02, 0.002), 256: BEST}), TOLERANCE, falling=False, rows=200)
    value, low, high = values_of(verdict.text, "verdict.closest_smaller")["excess"]
    assert value == pytest.approx(0.02)
    assert low < value < high


def test_unshown_difference_is_not_equality() -> None:
    wide = compared({8: OPEN, 256: BEST})
    shown = claims(wide.excess, wide.differences, TOLERANCE)
    assert [rank for rank, found in shown.items() if found.is_adequate] == [256]
    assert not any(found.is_inadequate or found.is_worse for found in shown.values())
    assert decide_verdict(wide, TOLERANCE, falling=False, rows=200).kind == "too_short"


def test_lowest_estimate_is_not_proof() -> None:
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
    assert codes(one.text)[:2] == ["verdict.of_one_seed", "verdict.adequate_and_lowest"]
    assert values_of(one.text, "verdict.of_one_seed")["seed"] == 4
    assert values_of(one.text, "verdict.adequate_and_lowest")["rank"] == 256
    several = decide_verdict(compared({8: WORSE, 256: BEST}), TOLERANCE, falling=False, rows=200)
    assert values_of(several.text, "verdict.of_seeds")["seeds"] == 3


def test_more_seeds_are_advised_where_they_limit_the_verdict() -> None:
    for degrees, remedy in ((4, "verdict.more_seeds"), (199, "verdict.more_rows")):
        comparison = compared({8: OPEN, 256: BEST}, degrees=degrees)
        assert codes(decide_verdict(comparison, TOLERANCE, falling=False, rows=200).text)[-1] == remedy


def test_p_values_of_every_rank() -> None:
    parts = decide_verdict(compared({8: WORSE, 64: EQUAL, 256: BEST}), TOLERANCE, falling=False, rows=200).claims
    assert [part.rank for part in parts] == [8, 64, 256]
    assert [part.adequate_p <= 0.05 for part in parts] == [False, True, True]
    assert [part.inadequate_p <= 0.05 for part in parts] == [True, False, False]
    assert [part.worse_p <= 0.05 for part in parts] == [True, False, False]


def test_falling_loss_is_too_short_despite_narrow_intervals() -> None:
    assert decide_verdict(compared({8: WORSE, 128: BEST}), TOLERANCE, falling=True, rows=200).kind == "too_short"


def test_few_rows_or_steps_support_no_verdict() -> None:
    clear = compared({8: WORSE, 128: BEST})
    few_rows = decide_verdict(clear, TOLERANCE, falling=False, rows=4)
    few_steps = decide_verdict(replace(clear, step=3), TOLERANCE, falling=False, rows=200)
    assert few_rows.kind == few_steps.kind == "too_short"
    assert values_of(few_rows.text, "verdict.few") == {"steps": 80, "rows": 4, "least": 20}
    assert values_of(few_steps.text, "verdict.few") == {"steps": 3, "rows": 200, "least": 20}


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

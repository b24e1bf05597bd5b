"""Recommendations within limits, and their sensitivity."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lorascope.analysis import summarize
from lorascope.analysis.verdict.schema import RecommendationSection
from lorascope.analysis.verdict.sensitivity import is_enough, may_be_enough, needed_tolerance
from lorascope.message import Message
from lorascope.run.limits import remedy_text
from lorascope.spec.limits import limits_of, within
from lorascope.spec.load import load_spec
from lorascope.spec.schema import StudySpec
from support.comparisons import compared
from support.messages import codes, values_of

MakeStudy = Callable[..., Path]
FLOORS = {8: 1.3, 64: 1.21, 256: 1.2}


def limited(make_study: MakeStudy, **limits: Any) -> RecommendationSection:
    return summarize(make_study(spec=StudySpec(ranks=tuple(FLOORS), **limits), floors=FLOORS)).recommendation


def test_recommendation_without_limits(make_study: MakeStudy) -> None:
    advice = limited(make_study)
    assert (advice.quality.rank, advice.efficient.rank, advice.constrained.rank) == (256, 256, 256)


@pytest.mark.parametrize(
    ("limits", "code", "kept", "exceeded", "most"),
    [
        ({"max_memory": "1.1GB"}, "limit.peak_memory", 1.064e9, 1.256e9, 1.1e9),
        ({"max_seconds": 40}, "limit.training_alone", 37.12, 52.48, 40),
        ({"max_adapter_mb": 13}, "limit.adapter", 12.8e6, 51.2e6, 13e6),
    ],
)
def test_limit_recommends_the_best_rank_within_it(
    make_study: MakeStudy, limits: dict, code: str, kept: float, exceeded: float, most: float
) -> None:
    advice = limited(make_study, **limits)
    assert (advice.quality.rank, advice.efficient.rank, advice.constrained.rank) == (64, 64, 64)
    assert values_of(advice.efficient.reason, "advice.among_within_limits")["count"] == 2
    assert values_of(advice.constrained.reason, code) == {"amount": pytest.approx(kept), "most": most}
    beyond = values_of(advice.constrained.change, "change.beyond_by")
    assert beyond["rank"] == 256
    assert values_of(beyond["what"], code) == {"amount": pytest.approx(exceeded), "most": most}
    assert values_of(advice.constrained.change, "change.without_limits") == {"rank": 256}


def test_only_rank_within_the_limits_is_recommended(make_study: MakeStudy) -> None:
    advice = limited(make_study, max_memory="1.02GB", max_seconds=600)
    assert advice.quality.rank == advice.efficient.rank == advice.constrained.rank == 8
    assert advice.efficient.reason == Message("advice.only_within_limits")
    reason = advice.constrained.reason
    above, memory, time = "advice.above_lowest_of_all", "limit.peak_memory", "limit.training_alone"
    assert codes(reason) == ["advice.reasons", "advice.only_within_limits", above, memory, time]
    assert 0.09 <= values_of(reason, above)["excess"][0] < 0.1
    assert values_of(reason, memory) == {"amount": 1_008_000_000, "most": 1_020_000_000}
    assert values_of(reason, time) == {"amount": pytest.approx(32.64), "most": 600}


def test_limits_that_every_rank_meets_are_mentioned(make_study: MakeStudy) -> None:
    spec = StudySpec(ranks=tuple(FLOORS), max_memory="2GiB")
    free = limited(make_study)
    kept = summarize(make_study(spec=spec, floors=FLOORS)).recommendation
    assert (kept.quality, kept.efficient) == (free.quality, free.efficient)
    assert kept.constrained.rank == free.constrained.rank
    assert "change.all_within_limits" in codes(kept.constrained.change)


def test_limits_that_no_rank_meets_name_the_nearest(make_study: MakeStudy) -> None:
    advice = limited(make_study, max_memory="1GB", max_adapter_mb=5)
    assert advice.quality.rank is advice.efficient.rank is advice.constrained.rank is None
    assert values_of(advice.efficient.reason, "limit.none_within")["rank"] == 8
    memory = {"amount": 1_008_000_000, "most": 1_000_000_000}
    assert values_of(advice.efficient.reason, "limit.peak_memory") == memory
    assert "limit.adapter" not in codes(advice.efficient.reason)


@pytest.mark.parametrize("limits", [{"max_memory": "1GB"}, {"max_seconds": 30.5}, {"max_adapter_mb": 1.25}])
def test_limits_remedy_is_sufficient(make_study: MakeStudy, limits: dict) -> None:
    parts = summarize(make_study(spec=StudySpec(ranks=tuple(FLOORS), **limits), floors=FLOORS)).ranks
    refused = limits_of(StudySpec(ranks=tuple(FLOORS), **limits))
    assert not any(within(refused, part) for part in parts)
    field, value = re.match(r"raise (\w+) to (\S+) and run", remedy_text(refused, parts)).groups()
    raised = load_spec(None, {field: value if field == "max_memory" else float(value)})
    assert [within(limits_of(raised), part) for part in parts] == [True, False, False]


def test_unmeasured_rank_is_not_within_a_limit(make_study: MakeStudy) -> None:
    spec = StudySpec(ranks=tuple(FLOORS), max_memory="9GB")
    advice = summarize(make_study(spec=spec, floors=FLOORS, costs=False)).recommendation
    assert advice.constrained.rank is None
    assert "limit.peak_memory_unknown" in codes(advice.constrained.reason)


def test_needed_tolerance_is_where_adequacy_begins() -> None:
    comparison = compared({8: (0.02, 0.005), 64: (0.002, 0.001), 128: (0.0, 0.001)})
    for rank in comparison.excess:
        for holds in (is_enough, may_be_enough):
            needed = needed_tolerance(comparison, rank, holds)
            assert needed is not None
            assert holds(comparison, rank, needed + 1e-9)
            assert needed < 1e-9 or not holds(comparison, rank, needed - 1e-9)
    # the last two of Holm's corrections double the p-value, so that adequacy begins where a 95 % interval ends
    assert needed_tolerance(comparison, 8, is_enough) == pytest.approx(comparison.excess[8].high, abs=1e-6)
    assert needed_tolerance(comparison, 64, may_be_enough) == pytest.approx(0, abs=1e-3)


def test_sensitivity_of_every_priority(make_study: MakeStudy) -> None:
    summary = summarize(make_study())
    high = {part.rank: part.excess_loss_ci95[1] for part in summary.ranks if part.excess_loss_ci95}
    low = {part.rank: part.excess_loss_ci95[0] for part in summary.ranks if part.excess_loss_ci95}
    value = {part.rank: part.excess_loss for part in summary.ranks}
    advice = summary.recommendation
    enough = values_of(advice.efficient.change, "change.other_enough_from")
    assert enough == {"rank": 8, "tolerance": pytest.approx(high[8], abs=5e-5)}
    other = values_of(advice.constrained.change, "change.other_from")
    assert other["rank"] == 8
    # corrected over the pairs of ranks, the interval over the ranks
    assert low[8] - 0.001 < other["tolerance"] < value[8]
    assert values_of(advice.quality.change, "change.lowest_not_above") == {"rank": 8, "low": low[8]}


def test_sensitivity_names_a_tolerance_that_changes_the_recommendation(make_study: MakeStudy) -> None:
    ranks = tuple(FLOORS)
    free = summarize(make_study(spec=StudySpec(ranks=ranks), floors=FLOORS)).recommendation.efficient
    assert free.rank == 256
    enough: list[Mapping[str, Any]] = [m.values for m in free.change if m.code == "change.other_enough_from"]
    named = next(values["tolerance"] for values in enough if values["rank"] == 64)
    for tolerance, kind in ((named + 1e-4, "adequate"), (named - 1e-4, "too_short")):
        spec = StudySpec(ranks=ranks, tolerance=tolerance)
        summary = summarize(make_study(spec=spec, floors=FLOORS))
        assert (summary.verdict.kind, summary.recommendation.efficient.rank) == (kind, 64)
        shown = "advice.within_tolerance_in_one_seed" in codes(summary.recommendation.efficient.reason)
        assert shown is (kind == "adequate")

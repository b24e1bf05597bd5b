"""Recommendations within limits, and their sensitivity."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorascope.analysis import summarize
from lorascope.analysis.verdict.schema import RecommendationSection
from lorascope.run.limits import remedy_text
from lorascope.spec.limits import limits_of, within
from lorascope.spec.load import load_spec
from lorascope.spec.schema import StudySpec
from support.messages import codes, values_of

MakeStudy = Callable[..., Path]
FLOORS = {8: 1.3, 64: 1.21, 256: 1.2}


def limited(make_study: MakeStudy, **limits: Any) -> RecommendationSection:
    return summarize(make_study(spec=StudySpec(ranks=tuple(FLOORS), **limits), floors=FLOORS)).recommendation


def named(advice: RecommendationSection) -> set[int | None]:
    return {part.rank for part in (advice.use, advice.loss, advice.value)}


def test_recommendation_without_limits(make_study: MakeStudy) -> None:
    assert named(limited(make_study)) == {256}


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
    assert named(advice) == {64}
    assert advice.memory.rank == 8
    assert values_of(advice.use.reason, code) == {"amount": pytest.approx(kept), "most": most}
    beyond = values_of(advice.use.change, "change.beyond_by")
    assert beyond["rank"] == 256
    assert values_of(beyond["what"], code) == {"amount": pytest.approx(exceeded), "most": most}


def test_only_rank_within_the_limits_is_recommended(make_study: MakeStudy) -> None:
    advice = limited(make_study, max_memory="1.02GB", max_seconds=600)
    assert named(advice) == {8}
    assert 0.09 <= values_of(advice.use.reason, "advice.above")["excess"][0] < 0.1
    assert values_of(advice.use.reason, "limit.peak_memory") == {"amount": 1_008_000_000, "most": 1_020_000_000}
    assert values_of(advice.use.reason, "limit.training_alone") == {"amount": pytest.approx(32.64), "most": 600}


def test_limits_that_every_rank_meets_are_mentioned(make_study: MakeStudy) -> None:
    spec = StudySpec(ranks=tuple(FLOORS), max_memory="2GiB")
    free = limited(make_study)
    kept = summarize(make_study(spec=spec, floors=FLOORS)).recommendation
    assert (kept.loss, kept.value, kept.time, kept.memory) == (free.loss, free.value, free.time, free.memory)
    assert "change.all_within_limits" in codes(kept.use.change)


def test_limits_that_no_rank_meets_name_the_nearest(make_study: MakeStudy) -> None:
    advice = limited(make_study, max_memory="1GB", max_adapter_mb=5)
    assert named(advice) == {None}
    assert values_of(advice.use.reason, "limit.none_within")["rank"] == 8
    memory = {"amount": 1_008_000_000, "most": 1_000_000_000}
    assert values_of(advice.use.reason, "limit.peak_memory") == memory
    assert "limit.adapter" not in codes(advice.use.reason)
    assert "change.beyond_by" in codes(advice.use.change)


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
    assert advice.use.rank is None
    assert "limit.peak_memory_unknown" in codes(advice.use.reason)

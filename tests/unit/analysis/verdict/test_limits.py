"""Recommendations within limits, and what would change them."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lorascope.analysis import summarize
from lorascope.analysis.verdict.limits import remedy_text
from lorascope.analysis.verdict.sensitivity import is_enough, may_be_enough, needed_tolerance
from lorascope.spec.limits import limits_of, within
from lorascope.spec.load import load_spec
from lorascope.spec.schema import StudySpec
from support.sequences import compared

MakeStudy = Callable[..., Path]
FLOORS = {8: 1.3, 64: 1.21, 256: 1.2}


def limited(make_study: MakeStudy, **limits: object):
    return summarize(make_study(spec=StudySpec(ranks=tuple(FLOORS), **limits), floors=FLOORS)).recommendation


def test_without_limits_the_records_decide(make_study: MakeStudy) -> None:
    advice = limited(make_study)
    assert (advice.quality.rank, advice.efficient.rank, advice.constrained.rank) == (256, 256, 256)


@pytest.mark.parametrize(
    ("limits", "numbers"),
    [
        ({"max_memory": "1.1GB"}, ("peak memory 1.06 GB (limit 1.10 GB)", "peak memory 1.26 GB (limit 1.10 GB)")),
        ({"max_seconds": 40}, ("training alone 37.1 s (limit 40.0 s)", "training alone 52.5 s (limit 40.0 s)")),
        ({"max_adapter_mb": 13}, ("adapter 12.8 MB (limit 13.0 MB)", "adapter 51.2 MB (limit 13.0 MB)")),
    ],
)
def test_a_limit_leaves_the_best_rank_within_it_and_says_both_numbers(
    make_study: MakeStudy, limits: dict, numbers: tuple[str, str]
) -> None:
    advice = limited(make_study, **limits)
    assert (advice.quality.rank, advice.efficient.rank, advice.constrained.rank) == (64, 64, 64)
    assert "of 2 ranks within the limits" in advice.efficient.reason
    assert numbers[0] in advice.constrained.reason
    assert f"Beyond the limits: rank 256 by its {numbers[1]}" in advice.constrained.change
    assert "Without limits the efficient choice is rank 256" in advice.constrained.change


def test_one_rank_within_the_limits_is_recommended_as_such(make_study: MakeStudy) -> None:
    advice = limited(make_study, max_memory="1.02GB", max_seconds=600)
    assert advice.quality.rank == advice.efficient.rank == advice.constrained.rank == 8
    assert advice.efficient.reason == "the only rank within the limits"
    assert advice.constrained.reason.startswith("the only rank within the limits; its held-out loss is 0.09")
    assert "above the lowest of all ranks; peak memory 1.01 GB (limit 1.02 GB)" in advice.constrained.reason
    assert "training alone 32.6 s (limit 10 min 00 s)" in advice.constrained.reason


def test_limits_that_every_rank_keeps_change_nothing_but_are_said(make_study: MakeStudy) -> None:
    spec = StudySpec(ranks=tuple(FLOORS), max_memory="2GiB")
    free = limited(make_study)
    kept = summarize(make_study(spec=spec, floors=FLOORS)).recommendation
    assert (kept.quality, kept.efficient) == (free.quality, free.efficient)
    assert kept.constrained.rank == free.constrained.rank
    assert "Every rank is within the limits" in kept.constrained.change


def test_limits_nothing_keeps_recommend_nothing_and_name_the_nearest(make_study: MakeStudy) -> None:
    advice = limited(make_study, max_memory="1GB", max_adapter_mb=5)
    assert advice.quality.rank is advice.efficient.rank is advice.constrained.rank is None
    assert "rank 8 comes nearest: peak memory 1.01 GB (limit 1.00 GB)" in advice.efficient.reason
    assert "adapter 1.6 MB" not in advice.efficient.reason


@pytest.mark.parametrize("limits", [{"max_memory": "1GB"}, {"max_seconds": 30.5}, {"max_adapter_mb": 1.25}])
def test_the_remedy_names_limits_that_are_enough(make_study: MakeStudy, limits: dict) -> None:
    parts = summarize(make_study(spec=StudySpec(ranks=tuple(FLOORS), **limits), floors=FLOORS)).ranks
    refused = limits_of(StudySpec(ranks=tuple(FLOORS), **limits))
    assert not any(within(refused, part) for part in parts)
    field, value = re.match(r"raise (\w+) to (\S+) and run", remedy_text(refused, parts)).groups()
    raised = load_spec(None, {field: value if field == "max_memory" else float(value)})
    assert [within(limits_of(raised), part) for part in parts] == [True, False, False]


def test_a_rank_that_was_not_measured_is_not_within_a_limit(make_study: MakeStudy) -> None:
    spec = StudySpec(ranks=tuple(FLOORS), max_memory="9GB")
    advice = summarize(make_study(spec=spec, floors=FLOORS, costs=False)).recommendation
    assert advice.constrained.rank is None
    assert "peak memory not measured (limit 9.00 GB)" in advice.constrained.reason


def test_the_needed_tolerance_is_where_adequacy_begins() -> None:
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


def test_every_wish_says_what_would_change_it(make_study: MakeStudy) -> None:
    summary = summarize(make_study())
    high = {part.rank: part.excess_loss_ci95[1] for part in summary.ranks if part.excess_loss_ci95}
    low = {part.rank: part.excess_loss_ci95[0] for part in summary.ranks if part.excess_loss_ci95}
    value = {part.rank: part.excess_loss for part in summary.ranks}
    advice = summary.recommendation
    assert f"Rank 8 is enough from a tolerance of {high[8]:.4f} on" in advice.efficient.change
    named = float(re.search(r"Rank 8 takes its place from a tolerance of ([\d.]+) on", advice.constrained.change)[1])
    assert low[8] - 0.001 < named < value[8]  # corrected over the pairs of ranks, the interval over the ranks
    assert f"its interval begins at {low[8]:.4f}" in advice.quality.change


def test_the_tolerance_named_by_the_change_does_change_the_recommendation(make_study: MakeStudy) -> None:
    ranks = tuple(FLOORS)
    free = summarize(make_study(spec=StudySpec(ranks=ranks), floors=FLOORS)).recommendation.efficient
    assert free.rank == 256
    named = float(re.search(r"Rank 64 is enough from a tolerance of ([\d.]+) on", free.change)[1])
    for tolerance, kind in ((named + 1e-4, "adequate"), (named - 1e-4, "too_short")):
        spec = StudySpec(ranks=ranks, tolerance=tolerance)
        summary = summarize(make_study(spec=spec, floors=FLOORS))
        assert (summary.verdict.kind, summary.recommendation.efficient.rank) == (kind, 64)
        assert ("shown, in one seed, to be within" in summary.recommendation.efficient.reason) is (kind == "adequate")

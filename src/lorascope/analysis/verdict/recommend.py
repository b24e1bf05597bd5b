"""Recommended ranks, one for each priority: lowest loss, time, memory."""

from collections.abc import Mapping

from lorascope.analysis.estimates.ranks import Comparison
from lorascope.analysis.summary import RankSection
from lorascope.analysis.verdict.claims import Claims, claims
from lorascope.analysis.verdict.schema import AdviceSection, RecommendationSection, VerdictSection
from lorascope.message import Message

_ONLY = Message("advice.only_rank")


def no_advice(reason: Message) -> RecommendationSection:
    """Recommend no rank, for a reason."""
    advice = AdviceSection(rank=None, reason=reason)
    return RecommendationSection(quality=advice, efficient=advice, constrained=advice)


def recommend(
    comparison: Comparison, ranks: Mapping[int, RankSection], verdict: VerdictSection, tolerance: float
) -> RecommendationSection:
    """Choose a rank for each priority from ranks compared at one step."""
    tests = claims(comparison.excess, comparison.differences, tolerance)
    return RecommendationSection(
        quality=_quality(comparison, tests),
        efficient=_efficient(comparison, ranks, tests, verdict, tolerance),
        constrained=_constrained(comparison, ranks, tests, tolerance),
    )


def _quality(comparison: Comparison, tests: Mapping[int, Claims]) -> AdviceSection:
    rank = min(rank for rank in comparison.excess if not tests[rank].is_worse)
    if len(comparison.excess) == 1:
        return AdviceSection(rank=rank, reason=_ONLY)
    loss, excess = comparison.loss[rank].value, comparison.excess[rank]
    if rank != comparison.best:
        reason = Message("advice.not_shown_worse", loss=loss, excess=excess, best=comparison.best)
    elif rank == min(comparison.excess):
        reason = Message("advice.lowest_and_smallest", loss=loss)
    else:
        reason = Message("advice.lowest", loss=loss)
    return AdviceSection(rank=rank, reason=reason)


def _efficient(
    comparison: Comparison,
    ranks: Mapping[int, RankSection],
    tests: Mapping[int, Claims],
    verdict: VerdictSection,
    tolerance: float,
) -> AdviceSection:
    """Choose the smallest adequate rank: a larger one computes and stores strictly more.

    If a larger rank was measured to be faster, the machine was less busy at that time.
    """
    candidates = [rank for rank in comparison.excess if tests[rank].is_adequate]
    basis = Message("advice.within_tolerance", tolerance=tolerance)
    if verdict.kind == "too_short":
        candidates = [rank for rank, excess in comparison.excess.items() if excess.value <= tolerance]
        basis = Message("advice.within_tolerance_by_estimate", tolerance=tolerance)
    elif verdict.seeds == 1:
        basis = Message("advice.within_tolerance_in_one_seed", tolerance=tolerance)
    if len(comparison.excess) == 1:
        basis = _ONLY
    rank = min(candidates)
    seconds = ranks[rank].step_seconds
    time = Message("advice.no_times") if seconds is None else Message("advice.step_alone", step_seconds=seconds)
    return AdviceSection(rank=rank, reason=Message("advice.reasons", reasons=(basis, time)))


def _constrained(
    comparison: Comparison, ranks: Mapping[int, RankSection], tests: Mapping[int, Claims], tolerance: float
) -> AdviceSection:
    rank = min(rank for rank in comparison.excess if not tests[rank].is_inadequate)
    size = ranks[rank].training_state_bytes
    memory = Message("advice.least_memory") if size is None else Message("advice.training_state", size=size)
    if len(comparison.excess) == 1:
        return AdviceSection(rank=rank, reason=Message("advice.reasons", reasons=(_ONLY, memory)))
    place = Message("advice.lowest_loss")
    if rank != comparison.best:
        place = Message("advice.above_lowest", excess=comparison.excess[rank])
    reason = Message("advice.not_shown_inadequate", tolerance=tolerance, place=place, memory=memory)
    return AdviceSection(rank=rank, reason=reason)

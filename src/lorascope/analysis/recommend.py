"""A rank for each of three wishes: lowest loss, time, memory."""

from collections.abc import Mapping

from lorascope.analysis.claims import Claims, claims
from lorascope.analysis.ranks import Comparison
from lorascope.analysis.summary import AdvicePart, RankPart, RecommendationPart, VerdictPart
from lorascope.analysis.wording import UNIT, nats, with_interval
from lorascope.units import format_bytes, format_seconds


def no_advice(reason: str) -> RecommendationPart:
    """Recommend nothing, and say why."""
    advice = AdvicePart(rank=None, reason=reason)
    return RecommendationPart(quality=advice, efficient=advice, constrained=advice)


def recommend(
    comparison: Comparison, ranks: Mapping[int, RankPart], verdict: VerdictPart, tolerance: float
) -> RecommendationPart:
    """Choose a rank for each wish from ranks compared at one step."""
    tests = claims(comparison.excess, comparison.differences, tolerance)
    return RecommendationPart(
        quality=_quality(comparison, tests),
        efficient=_efficient(comparison, ranks, tests, verdict, tolerance),
        constrained=_constrained(comparison, ranks, tests, tolerance),
    )


def _quality(comparison: Comparison, tests: Mapping[int, Claims]) -> AdvicePart:
    rank = min(rank for rank in comparison.excess if not tests[rank].is_worse)
    if len(comparison.excess) == 1:
        return AdvicePart(rank=rank, reason="the only rank with a held-out loss")
    loss = comparison.loss[rank].value
    if rank == comparison.best:
        reason = f"lowest held-out loss, {nats(loss)} {UNIT}; every smaller rank compared is measurably above it"
        if rank == min(comparison.excess):
            reason = f"lowest held-out loss, {nats(loss)} {UNIT}, and the smallest rank"
        return AdvicePart(rank=rank, reason=reason)
    above = with_interval(comparison.excess[rank])
    reason = (
        f"smallest rank not shown to be worse than another: {nats(loss)} {UNIT}, {above} above rank "
        f"{comparison.best}, the lowest"
    )
    return AdvicePart(rank=rank, reason=reason)


def _efficient(
    comparison: Comparison,
    ranks: Mapping[int, RankPart],
    tests: Mapping[int, Claims],
    verdict: VerdictPart,
    tolerance: float,
) -> AdvicePart:
    """Choose the smallest adequate rank: a larger one has strictly more to compute and to hold.

    A larger rank that was measured to be faster was measured in a quieter moment.
    """
    candidates = [rank for rank in comparison.excess if tests[rank].is_adequate]
    basis = f"shown to be within {tolerance:g} {UNIT} of the lowest loss"
    if verdict.kind == "too_short":
        candidates = [rank for rank, excess in comparison.excess.items() if excess.value <= tolerance]
        basis = f"within {tolerance:g} {UNIT} of the lowest loss by the estimate alone"
    elif verdict.seeds == 1:
        basis = f"shown, in one seed, to be within {tolerance:g} {UNIT} of the lowest loss"
    rank = min(candidates)
    seconds = ranks[rank].step_seconds
    measured = "times were not measured" if seconds is None else f"{format_seconds(seconds)} a step alone"
    return AdvicePart(rank=rank, reason=f"smallest rank {basis}; {measured}")


def _constrained(
    comparison: Comparison, ranks: Mapping[int, RankPart], tests: Mapping[int, Claims], tolerance: float
) -> AdvicePart:
    rank = min(rank for rank in comparison.excess if not tests[rank].is_inadequate)
    size = ranks[rank].training_state_bytes
    memory = f"its adapter, gradient and optimizer take {format_bytes(size)}" if size is not None else "least memory"
    place = (
        "the lowest loss" if rank == comparison.best else f"{with_interval(comparison.excess[rank])} above the lowest"
    )
    return AdvicePart(
        rank=rank, reason=f"smallest rank not shown to be worse than the tolerance of {tolerance:g}: {place}; {memory}"
    )

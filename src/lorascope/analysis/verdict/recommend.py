"""A rank for each of three wishes: lowest loss, time, memory."""

from collections.abc import Mapping

from lorascope.analysis.estimates.ranks import Comparison
from lorascope.analysis.summary import AdviceSection, RankSection, RecommendationSection, VerdictSection
from lorascope.analysis.verdict.claims import Claims, claims
from lorascope.text.language import tr
from lorascope.text.numbers import format_seconds, interval, nats
from lorascope.units import format_bytes


def no_advice(reason: str) -> RecommendationSection:
    """Recommend nothing, and say why."""
    advice = AdviceSection(rank=None, reason=reason)
    return RecommendationSection(quality=advice, efficient=advice, constrained=advice)


def recommend(
    comparison: Comparison, ranks: Mapping[int, RankSection], verdict: VerdictSection, tolerance: float
) -> RecommendationSection:
    """Choose a rank for each wish from ranks compared at one step."""
    tests = claims(comparison.excess, comparison.differences, tolerance)
    return RecommendationSection(
        quality=_quality(comparison, tests),
        efficient=_efficient(comparison, ranks, tests, verdict, tolerance),
        constrained=_constrained(comparison, ranks, tests, tolerance),
    )


def _quality(comparison: Comparison, tests: Mapping[int, Claims]) -> AdviceSection:
    rank = min(rank for rank in comparison.excess if not tests[rank].is_worse)
    if len(comparison.excess) == 1:
        return AdviceSection(rank=rank, reason=_only())
    loss = nats(comparison.loss[rank].value)
    if rank != comparison.best:
        reason = tr(
            "smallest rank not shown to be worse than another: {loss} nats a token, {excess} above rank {best}, the "
            "lowest",
            loss=loss,
            excess=interval(comparison.excess[rank].value, comparison.excess[rank].low, comparison.excess[rank].high),
            best=comparison.best,
        )
    elif rank == min(comparison.excess):
        reason = tr("lowest held-out loss, {loss} nats a token, and the smallest rank", loss=loss)
    else:
        reason = tr(
            "lowest held-out loss, {loss} nats a token; every smaller rank compared is measurably above it", loss=loss
        )
    return AdviceSection(rank=rank, reason=reason)


def _efficient(
    comparison: Comparison,
    ranks: Mapping[int, RankSection],
    tests: Mapping[int, Claims],
    verdict: VerdictSection,
    tolerance: float,
) -> AdviceSection:
    """Choose the smallest adequate rank: a larger one has strictly more to compute and to hold.

    A larger rank that was measured to be faster was measured in a quieter moment.
    """
    candidates = [rank for rank in comparison.excess if tests[rank].is_adequate]
    basis = tr("smallest rank shown to be within {tolerance:g} nats a token of the lowest loss", tolerance=tolerance)
    if verdict.kind == "too_short":
        candidates = [rank for rank, excess in comparison.excess.items() if excess.value <= tolerance]
        basis = tr(
            "smallest rank within {tolerance:g} nats a token of the lowest loss by the estimate alone",
            tolerance=tolerance,
        )
    elif verdict.seeds == 1:
        basis = tr(
            "smallest rank shown, in one seed, to be within {tolerance:g} nats a token of the lowest loss",
            tolerance=tolerance,
        )
    if len(comparison.excess) == 1:
        basis = _only()
    rank = min(candidates)
    seconds = ranks[rank].step_seconds
    measured = tr("times were not measured")
    if seconds is not None:
        measured = tr("{time} a step alone", time=format_seconds(seconds))
    return AdviceSection(rank=rank, reason=f"{basis}; {measured}")


def _constrained(
    comparison: Comparison, ranks: Mapping[int, RankSection], tests: Mapping[int, Claims], tolerance: float
) -> AdviceSection:
    rank = min(rank for rank in comparison.excess if not tests[rank].is_inadequate)
    size = ranks[rank].training_state_bytes
    memory = tr("least memory")
    if size is not None:
        memory = tr("its adapter, gradient and optimizer take {size}", size=format_bytes(size))
    if len(comparison.excess) == 1:
        return AdviceSection(rank=rank, reason=f"{_only()}; {memory}")
    place = tr("the lowest loss")
    if rank != comparison.best:
        place = tr(
            "{excess} above the lowest",
            excess=interval(comparison.excess[rank].value, comparison.excess[rank].low, comparison.excess[rank].high),
        )
    reason = tr(
        "smallest rank not shown to be worse than the tolerance of {tolerance:g}: {place}; {memory}",
        tolerance=tolerance,
        place=place,
        memory=memory,
    )
    return AdviceSection(rank=rank, reason=reason)


def _only() -> str:
    return tr("the only rank with a held-out loss")

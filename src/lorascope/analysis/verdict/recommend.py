"""Recommended ranks: the one to use, and the one that each need names.

Each need is answered by what it says: the lowest loss by the lowest estimate, time and memory by the cheapest rank,
with what it loses beside it. How sure it is that a rank's loss is good enough is the evidence, the same for all needs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lorascope.analysis.estimates.ranks import Comparison
from lorascope.analysis.summary import RankSection
from lorascope.analysis.verdict.claims import Claims
from lorascope.analysis.verdict.posterior import Standing
from lorascope.analysis.verdict.schema import AdviceSection, Evidence, RecommendationSection, VerdictSection
from lorascope.analysis.verdict.sensitivity import needed_tolerance
from lorascope.message import Message
from lorascope.spec.fields.answer import Preference

PRICE = 0.2
"""Share of the tolerance that a doubling of the rank has to gain: five doublings, as from 8 to 256, are worth all of
it."""
LIKELY = 0.8
"""A chance from here on is called likely."""
_ONLY = Message("advice.only_rank")


@dataclass(frozen=True, kw_only=True, slots=True)
class Grounds:
    """Evidence behind a recommendation."""

    comparison: Comparison
    ranks: Mapping[int, RankSection]
    """The ranks that may be recommended; not empty, and all compared."""
    tests: Mapping[int, Claims]
    standings: Mapping[int, Standing]
    verdict: VerdictSection
    tolerance: float
    steady: bool
    """True where the measured times may be compared."""


def no_advice(reason: Message, change: Sequence[Message] = ()) -> RecommendationSection:
    """Recommend no rank, for a reason."""
    none = AdviceSection(rank=None, reason=reason)
    use = AdviceSection(rank=None, reason=reason, change=tuple(change))
    return RecommendationSection(use=use, loss=none, value=none, time=none, memory=none)


def recommend(grounds: Grounds, prefer: Preference) -> RecommendationSection:
    """Name a rank for each need, and the one to use: that of the preferred need, or else of the best value."""
    needs = {"loss": _loss(grounds), "value": _value(grounds), "time": _time(grounds), "memory": _memory(grounds)}
    chosen = needs[prefer] if needs[prefer].rank is not None else needs["value"]
    use = chosen.model_copy(update={"change": _change(grounds, chosen)})
    return RecommendationSection(use=use, **needs)


def _loss(grounds: Grounds) -> AdviceSection:
    rank = min(grounds.ranks, key=lambda rank: (grounds.comparison.excess[rank].value, rank))
    lowest = Message("advice.lowest", loss=grounds.comparison.loss[rank].value)
    return _advice(grounds, rank, lowest if rank == grounds.comparison.best else Message("advice.lowest_allowed"))


def _value(grounds: Grounds) -> AdviceSection:
    """Choose the rank that is shown to be enough, or else the one of the least expected loss and price."""
    named = [rank for rank, found in grounds.tests.items() if found.is_adequate]
    if grounds.verdict.kind in ("adequate", "no_measurable_difference") and min(named) in grounds.ranks:
        code = "advice.smallest_enough" if grounds.verdict.seeds > 1 else "advice.smallest_enough_in_one_seed"
        return _advice(grounds, min(named), Message(code, tolerance=grounds.tolerance))
    price = PRICE * grounds.tolerance
    rank = min(grounds.ranks, key=lambda rank: grounds.standings[rank].regret + price * math.log2(rank))
    return _advice(grounds, rank, Message("advice.least_regret", regret=grounds.standings[rank].regret))


def _time(grounds: Grounds) -> AdviceSection:
    seconds = {rank: part.step_seconds for rank, part in grounds.ranks.items() if part.step_seconds is not None}
    if len(seconds) < len(grounds.ranks):
        return AdviceSection(rank=None, reason=Message("advice.no_times"))
    if not grounds.steady:
        return AdviceSection(rank=None, reason=Message("advice.unsteady_times"))
    rank = min(seconds, key=lambda rank: (seconds[rank], rank))
    return _advice(grounds, rank, Message("advice.step_alone", step_seconds=seconds[rank]))


def _memory(grounds: Grounds) -> AdviceSection:
    """Choose the smallest rank: it holds strictly less than any other."""
    rank = min(grounds.ranks)
    size = grounds.ranks[rank].training_state_bytes
    return _advice(grounds, rank, Message("advice.smallest") if size is None else Message("advice.state", size=size))


def _advice(grounds: Grounds, rank: int, reason: Message) -> AdviceSection:
    """Add what the rank loses against the best, and how sure it is that this is within the tolerance."""
    excess, best = grounds.comparison.excess, grounds.comparison.best
    if len(excess) == 1:
        return AdviceSection(rank=rank, reason=_ONLY)
    above = () if rank == best else (Message("advice.above", excess=excess[rank], best=best),)
    return AdviceSection(
        rank=rank,
        reason=Message("advice.reasons", reasons=(reason, *above)),
        evidence=_evidence(grounds, rank),
        chance=round(grounds.standings[rank].chance, 2) if grounds.verdict.seeds > 1 else None,
    )


def _evidence(grounds: Grounds, rank: int) -> Evidence:
    """One seed proves nothing of another, nor do too few steps or rows, which leave ``rank_matters`` open."""
    if grounds.verdict.seeds < 2 or grounds.verdict.kind == "nothing_to_compare":
        return "unproven"
    if grounds.tests[rank].is_adequate and grounds.verdict.rank_matters is not None:
        return "proven"
    return "likely" if grounds.standings[rank].chance >= LIKELY else "unproven"


def _change(grounds: Grounds, advice: AdviceSection) -> tuple[Message, ...]:
    """Return the tolerance under which a rank that is not proven to be good enough is; one seed proves nothing."""
    if advice.rank is None or advice.evidence in (None, "proven") or grounds.verdict.seeds < 2:
        return ()
    needed = needed_tolerance(grounds.comparison, advice.rank)
    if needed is None or needed <= grounds.tolerance:
        return ()
    return (Message("change.enough_from", tolerance=needed),)

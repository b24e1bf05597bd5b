"""Verdict: which ranks the data shows to be adequate, if it shows any."""

import math
from collections.abc import Iterator, Mapping, Sequence

from lorascope.analysis.estimates.paired import LEVEL
from lorascope.analysis.estimates.ranks import Comparison
from lorascope.analysis.verdict.claims import Claims
from lorascope.analysis.verdict.schema import ClaimsSection, VerdictKind, VerdictSection
from lorascope.analysis.verdict.shown import claims_of
from lorascope.message import Message, Sentences
from lorascope.records import EvalRecord

LEAST = 20
"""With fewer steps or held-out rows there is no verdict: an interval over so few rows may be too narrow by chance."""
FEW_DEGREES = 20
"""Below this a t interval is noticeably wider than it would be with a known variance (2.09 against 1.96)."""


def still_falling(records: Sequence[EvalRecord], tolerance: float) -> bool:
    """Return True if the held-out loss fell in the last interval at its average pace since the start, or faster.

    Needs three evaluations, the first before training. A fall below the tolerance does not count.
    """
    points = [(record.step, loss) for record in records if (loss := record.loss) is not None]
    if len(points) < 3:
        return False
    (first_step, first_loss), (before_step, before_loss), (last_step, last_loss) = points[0], points[-2], points[-1]
    last_fall = before_loss - last_loss
    average_pace = (first_loss - last_loss) / (last_step - first_step)
    return last_fall > tolerance and last_fall / (last_step - before_step) >= average_pace


def decide_verdict(
    comparison: Comparison, tolerance: float, *, falling: bool, rows: int, looks: int = 0, limit: Sentences = ()
) -> VerdictSection:
    """Decide between ranks compared at one step.

    With one seed the claims hold in that seed only, and the text says so.

    Args:
        comparison: of the ranks.
        tolerance: in nats a token.
        falling: True where the lowest loss still falls.
        rows: held-out rows.
        looks: of a sequential study.
        limit: what keeps a sequential study from a verdict.
    """
    seeds = len(comparison.seeds)
    if len(comparison.excess) == 1:
        alone = Message("verdict.one_rank", rank=comparison.best)
        return VerdictSection(kind="nothing_to_compare", text=(alone,), seeds=seeds)
    tests = claims_of(comparison, tolerance)
    parts = tuple(
        ClaimsSection(rank=rank, adequate_p=found.adequate, inadequate_p=found.inadequate, worse_p=found.worse)
        for rank, found in tests.items()
    )
    too_short = _too_short(comparison, falling, rows)
    if too_short is not None:
        return VerdictSection(kind="too_short", text=(too_short,), seeds=seeds, claims=parts)
    kind, found = _decide(comparison, tests, tolerance, limit)
    return VerdictSection(
        kind=kind,
        text=(_in_scope(found, comparison.seeds, looks),),
        seeds=seeds,
        rank_matters=any(found.is_worse for found in tests.values()) if seeds > 1 else None,
        claims=parts,
    )


def _too_short(comparison: Comparison, falling: bool, rows: int) -> Message | None:
    if comparison.step is None or min(comparison.step, rows) < LEAST:
        return Message("verdict.few", steps=comparison.step, rows=rows, least=LEAST)
    return Message("verdict.still_falling", rank=comparison.best) if falling else None


def _decide(
    comparison: Comparison, tests: Mapping[int, Claims], tolerance: float, limit: Sentences
) -> tuple[VerdictKind, Sentences]:
    """Name the smallest adequate rank, unless a smaller one is undecided and may well be adequate.

    A smaller rank shown to be worse, with an estimate above the tolerance, does not delay the verdict: so close to the
    tolerance, hardly any amount of data could settle which side it is on.
    """
    enough = [rank for rank, found in tests.items() if found.is_adequate]
    if len(enough) == len(tests) and not any(found.is_worse for found in tests.values()):
        return "no_measurable_difference", (_equivalent(tests, tolerance),)
    undecided = open_ranks(tests, excesses(comparison), tolerance)
    if undecided or not enough:
        return "too_short", (*_unsettled(undecided, enough, tolerance), *(limit or (_wanted(comparison),)))
    return "adequate", tuple(_adequate(comparison, tests, min(enough), tolerance))


def excesses(comparison: Comparison) -> dict[int, float]:
    """Return each rank's excess over the best, in nats a token."""
    return {rank: found.value for rank, found in comparison.excess.items()}


def open_ranks(tests: Mapping[int, Claims], excess: Mapping[int, float], tolerance: float) -> tuple[int, ...]:
    """Return the ranks that could still be the smallest adequate one.

    Args:
        tests: by rank.
        excess: of each rank over the best, in nats a token.
        tolerance: in nats a token.
    """
    smallest = min((rank for rank, found in tests.items() if found.is_adequate), default=math.inf)
    return tuple(
        rank
        for rank, found in tests.items()
        if rank < smallest and not (found.is_adequate or is_settled(found, excess[rank], tolerance))
    )


def is_settled(test: Claims, excess: float, tolerance: float) -> bool:
    """Return True for a rank that is shown to be inadequate, or to be worse with an estimate above the tolerance."""
    return test.is_inadequate or (test.is_worse and excess > tolerance)


def limited_by_seeds(comparison: Comparison) -> bool:
    """Return True where more seeds narrow the differences, which have few degrees of freedom; else more rows do."""
    return min(found.degrees for found in comparison.differences.values()) < FEW_DEGREES


def _equivalent(tests: Mapping[int, Claims], tolerance: float) -> Message:
    p = max(found.adequate for found in tests.values())
    return Message("verdict.equivalent", first=min(tests), last=max(tests), tolerance=tolerance, p=p)


def _unsettled(unsettled: tuple[int, ...], enough: Sequence[int], tolerance: float) -> Sentences:
    """Name the ranks that could be the smallest adequate one."""
    asked = Message("verdict.unsettled", ranks=unsettled, tolerance=tolerance)
    return (asked, Message("verdict.smallest_shown", rank=min(enough))) if enough else (asked,)


def _wanted(comparison: Comparison) -> Message:
    """Ask for seeds where they limit the differences, which then have few degrees of freedom; else for rows."""
    return Message("verdict.more_seeds" if limited_by_seeds(comparison) else "verdict.more_rows")


def _adequate(
    comparison: Comparison, tests: Mapping[int, Claims], smallest: int, tolerance: float
) -> Iterator[Message]:
    """Name the smallest adequate rank and the standing of the smaller ones."""
    excess, p = comparison.excess[smallest], tests[smallest].adequate
    if smallest == comparison.best:
        yield Message("verdict.adequate_and_lowest", rank=smallest, p=p)
    else:
        high = comparison.differences[smallest, comparison.best].interval(above=LEVEL).high
        yield Message("verdict.adequate", rank=smallest, p=p, best=comparison.best, high=high, tolerance=tolerance)
    if tests[smallest].is_worse:
        yield Message("verdict.above_another", excess=excess)
    smaller = [rank for rank in comparison.excess if rank < smallest]
    if smaller:
        closest = min(smaller, key=lambda rank: comparison.excess[rank].value)
        code = "verdict.smaller" if len(smaller) == 1 else "verdict.closest_smaller"
        yield Message(code, rank=closest, excess=comparison.excess[closest])
    unsure = tuple(rank for rank in smaller if not tests[rank].is_inadequate)
    if unsure:
        yield Message("verdict.not_shown", ranks=unsure)


def _in_scope(found: Sentences, seeds: Sequence[int], looks: int) -> Message:
    """State what a verdict covers: rows and seeds, over all looks, or the rows of one seed."""
    if looks:
        return Message("verdict.of_looks", verdict=found, seeds=len(seeds), looks=looks)
    if len(seeds) > 1:
        return Message("verdict.of_seeds", verdict=found, seeds=len(seeds))
    return Message("verdict.of_one_seed", verdict=found, seed=seeds[0])

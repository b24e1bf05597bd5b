"""What the data supports: which ranks are adequate, and whether that can be told at all."""

from collections.abc import Mapping, Sequence

from lorascope.analysis.estimates.ranks import Comparison
from lorascope.analysis.summary import ClaimsSection, VerdictKind, VerdictSection
from lorascope.analysis.verdict.claims import Claims, claims
from lorascope.analysis.verdict.wording import (
    adequate_text,
    equivalent_text,
    few_text,
    in_scope,
    single_text,
    still_falling_text,
    unsettled_text,
)
from lorascope.records import EvalRecord

LEAST = 20
"""Fewer steps or held-out rows than this support no verdict, however narrow an interval of so few rows comes out."""


def still_falling(records: Sequence[EvalRecord], tolerance: float) -> bool:
    """Say whether the held-out loss fell in the last interval at its average pace since the start, or faster.

    Needs three evaluations, the first before training. A fall below the tolerance does not count.
    """
    points = [(record.step, loss) for record in records if (loss := record.loss) is not None]
    if len(points) < 3:
        return False
    (first_step, first_loss), (before_step, before_loss), (last_step, last_loss) = points[0], points[-2], points[-1]
    last_fall = before_loss - last_loss
    average_pace = (first_loss - last_loss) / (last_step - first_step)
    return last_fall > tolerance and last_fall / (last_step - before_step) >= average_pace


def decide_verdict(comparison: Comparison, tolerance: float, *, falling: bool, rows: int) -> VerdictSection:
    """Decide between ranks that stand at one step.

    With one seed nothing is claimed about ranks as such: what is shown holds in that seed, and the text says so.
    """
    seeds = len(comparison.seeds)
    if len(comparison.excess) == 1:
        return VerdictSection(kind="nothing_to_compare", text=single_text(comparison), seeds=seeds)
    tests = claims(comparison.excess, comparison.differences, tolerance)
    parts = tuple(
        ClaimsSection(rank=rank, adequate_p=found.adequate, inadequate_p=found.inadequate, worse_p=found.worse)
        for rank, found in tests.items()
    )
    if comparison.step is None or min(comparison.step, rows) < LEAST:
        return VerdictSection(kind="too_short", text=few_text(comparison, rows, LEAST), seeds=seeds, claims=parts)
    if falling:
        return VerdictSection(kind="too_short", text=still_falling_text(comparison), seeds=seeds, claims=parts)
    kind, text = _decide(comparison, tests, tolerance)
    return VerdictSection(
        kind=kind,
        text=in_scope(text, comparison.seeds),
        seeds=seeds,
        rank_matters=any(found.is_worse for found in tests.values()) if seeds > 1 else None,
        claims=parts,
    )


def _decide(comparison: Comparison, tests: Mapping[int, Claims], tolerance: float) -> tuple[VerdictKind, str]:
    """Name the smallest adequate rank, unless a smaller one is undecided and may well be adequate.

    A smaller rank that is shown to be worse, by an estimate above the tolerance, keeps no verdict waiting: so near to
    the tolerance hardly any amount of data would settle on which side it lies.
    """
    enough = [rank for rank, found in tests.items() if found.is_adequate]
    if len(enough) == len(tests) and not any(found.is_worse for found in tests.values()):
        return "no_measurable_difference", equivalent_text(tests, tolerance)
    unsettled = [
        rank
        for rank, found in tests.items()
        if not (found.is_adequate or found.is_inadequate)
        and (not enough or rank < min(enough))
        and not (found.is_worse and comparison.excess[rank].value > tolerance)
    ]
    if unsettled or not enough:
        return "too_short", unsettled_text(comparison, unsettled, enough, tolerance)
    return "adequate", adequate_text(comparison, tests, min(enough), tolerance)

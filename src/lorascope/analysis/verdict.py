"""What the data supports: which ranks are adequate, and whether that can be told at all."""

from collections.abc import Sequence

from lorascope.analysis.estimates import evaluation_loss
from lorascope.analysis.ranks import Comparison
from lorascope.analysis.summary import VerdictPart
from lorascope.analysis.wording import UNIT, nats, ranks, with_interval
from lorascope.records import EvalRecord


def adequate_ranks(comparison: Comparison, tolerance: float) -> list[int]:
    """List the ranks shown to exceed the best by no more than the tolerance: the whole interval lies below it.

    The rank with the lowest estimate is shown to be adequate when no other interval reaches lower by more than that.
    """
    shown = [rank for rank, excess in comparison.excess.items() if excess.high <= tolerance]
    if any(excess.low < -tolerance for excess in comparison.excess.values()):
        shown.remove(comparison.best)
    return shown


def undecided_ranks(comparison: Comparison, tolerance: float) -> list[int]:
    """List the ranks neither shown to be adequate nor shown to exceed the tolerance."""
    shown = adequate_ranks(comparison, tolerance)
    return [rank for rank, excess in comparison.excess.items() if excess.low <= tolerance and rank not in shown]


def open_ranks(comparison: Comparison, tolerance: float) -> list[int]:
    """List the undecided ranks that would be the smallest adequate one if they were adequate."""
    shown = adequate_ranks(comparison, tolerance)
    return [rank for rank in undecided_ranks(comparison, tolerance) if not shown or rank < min(shown)]


def equivalent(comparison: Comparison, tolerance: float) -> bool:
    """Say whether every rank's whole interval lies within the tolerance of the best, on both sides."""
    return all(-tolerance <= excess.low and excess.high <= tolerance for excess in comparison.excess.values())


def still_falling(records: Sequence[EvalRecord], tolerance: float) -> bool:
    """Say whether the held-out loss fell in the last interval at its average pace since the start, or faster.

    Needs three evaluations, the first before training. A fall below the tolerance does not count.
    """
    points = [(record.step, loss) for record in records if (loss := evaluation_loss(record)) is not None]
    if len(points) < 3:
        return False
    (first_step, first_loss), (before_step, before_loss), (last_step, last_loss) = points[0], points[-2], points[-1]
    last_fall = before_loss - last_loss
    average_pace = (first_loss - last_loss) / (last_step - first_step)
    return last_fall > tolerance and last_fall / (last_step - before_step) >= average_pace


LEAST = 20
"""Fewer steps or held-out rows than this support no verdict, however narrow an interval of so few rows comes out."""


def judge(comparison: Comparison, tolerance: float, *, falling: bool, rows: int) -> VerdictPart:
    """Decide between ranks that stand at one step."""
    if len(comparison.excess) == 1:
        text = f"Only rank {comparison.best} has a held-out loss, so there is nothing to compare it with."
        return VerdictPart(kind="nothing_to_compare", text=text)
    if comparison.step is None or min(comparison.step, rows) < LEAST:
        text = f"Too short to tell: {comparison.step} steps, {rows} held-out rows; a verdict needs {LEAST} of each."
        return VerdictPart(kind="too_short", text=text)
    if falling:
        text = (
            f"Too short to tell: the held-out loss of rank {comparison.best}, the lowest so far, still falls as fast "
            "as over the whole run. Train for more steps."
        )
        return VerdictPart(kind="too_short", text=text)
    if equivalent(comparison, tolerance):
        text = (
            f"No measurable difference: every rank is within {tolerance:g} {UNIT} of the best one, "
            f"with its whole 95% interval. The smallest, rank {min(comparison.excess)}, is enough."
        )
        return VerdictPart(kind="no_measurable_difference", text=text)
    unsettled = open_ranks(comparison, tolerance)
    if unsettled:
        return VerdictPart(kind="too_short", text=_unsettled_text(comparison, tolerance, unsettled))
    return VerdictPart(kind="adequate", text=_adequate_text(comparison, tolerance))


def _unsettled_text(comparison: Comparison, tolerance: float, unsettled: Sequence[int]) -> str:
    shown = adequate_ranks(comparison, tolerance)
    known = f" Rank {min(shown)} is the smallest rank shown to be enough." if shown else ""
    return (
        f"Too little data to tell whether {ranks(unsettled)} {'is' if len(unsettled) == 1 else 'are'} enough, that is "
        f"within {tolerance:g} {UNIT} of the lowest loss.{known} Hold out more rows, or train for more steps."
    )


def _adequate_text(comparison: Comparison, tolerance: float) -> str:
    smallest = min(adequate_ranks(comparison, tolerance))
    excess = comparison.excess[smallest]
    if smallest == comparison.best:
        head = f"Rank {smallest} is the smallest adequate rank; its held-out loss is the lowest of all."
    else:
        head = (
            f"Rank {smallest} is enough: its held-out loss exceeds that of rank {comparison.best}, the lowest, by at "
            f"most {nats(excess.high)} {UNIT} (upper end of the 95% interval; tolerance {tolerance:g})."
        )
    worse = [rank for rank in comparison.excess if rank < smallest]
    parts = [head]
    if worse:
        closest = min(worse, key=lambda rank: comparison.excess[rank].value)
        subject = f"Rank {closest}" if len(worse) == 1 else f"Of the smaller ranks, {closest} comes closest: it"
        parts.append(f"{subject} exceeds the lowest by {with_interval(comparison.excess[closest])}.")
    return " ".join(parts)

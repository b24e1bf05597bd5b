"""What the data supports: which ranks are adequate, and whether that can be told at all."""

from collections.abc import Sequence

from lorascope.analysis.estimates import evaluation_loss
from lorascope.analysis.ranks import Comparison
from lorascope.analysis.summary import VerdictPart
from lorascope.analysis.wording import UNIT, nats, ranks, with_interval
from lorascope.records import EvalRecord


def adequate_ranks(comparison: Comparison, tolerance: float) -> list[int]:
    """List the ranks shown to exceed the best by no more than the tolerance: the whole interval lies below it."""
    return [rank for rank, excess in comparison.excess.items() if excess.high <= tolerance]


def undecided_ranks(comparison: Comparison, tolerance: float) -> list[int]:
    """List the ranks whose interval has the tolerance inside."""
    return [rank for rank, excess in comparison.excess.items() if excess.low <= tolerance < excess.high]


def equivalent(comparison: Comparison, tolerance: float) -> bool:
    """Say whether every rank's whole interval lies within the tolerance of the best, on both sides."""
    return all(-tolerance <= excess.low and excess.high <= tolerance for excess in comparison.excess.values())


def too_wide(comparison: Comparison, tolerance: float) -> bool:
    """Say whether nothing was decided: every rank but the best could be adequate or not."""
    return len(undecided_ranks(comparison, tolerance)) == len(comparison.excess) - 1


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


def judge(comparison: Comparison, tolerance: float, *, falling: bool) -> VerdictPart:
    """Decide between ranks that stand at one step."""
    if len(comparison.excess) == 1:
        text = f"Only rank {comparison.best} has a held-out loss, so there is nothing to compare it with."
        return VerdictPart(kind="nothing_to_compare", text=text)
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
    if too_wide(comparison, tolerance):
        text = (
            f"Too little data to tell: beside rank {comparison.best}, the lowest, every interval reaches both below "
            f"and above the tolerance of {tolerance:g} {UNIT}. Hold out more rows, or train for more steps."
        )
        return VerdictPart(kind="too_short", text=text)
    return VerdictPart(kind="adequate", text=_adequate_text(comparison, tolerance))


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
    undecided = [rank for rank in undecided_ranks(comparison, tolerance) if rank < smallest]
    worse = [rank for rank in comparison.excess if rank < smallest and rank not in undecided]
    parts = [head]
    if worse:
        closest = min(worse, key=lambda rank: comparison.excess[rank].value)
        subject = f"Rank {closest}" if len(worse) == 1 else f"Of the smaller ranks, {closest} comes closest: it"
        parts.append(f"{subject} exceeds the lowest by {with_interval(comparison.excess[closest])}.")
    if undecided:
        verb = "was" if len(undecided) == 1 else "were"
        text = ranks(undecided)
        parts.append(f"{text[0].upper()}{text[1:]} {verb} neither shown to be adequate nor shown not to be.")
    return " ".join(parts)

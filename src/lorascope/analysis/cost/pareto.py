"""The Pareto set of the ranks over held-out loss, time and memory."""

from collections.abc import Sequence

from lorascope.analysis.summary import RankSection


def mark_pareto(ranks: Sequence[RankSection]) -> tuple[RankSection, ...]:
    """Mark every rank with all three estimates: True if no other rank dominates it."""
    points = {part.rank: point for part in ranks if (point := _point(part)) is not None}
    return tuple(
        part.model_copy(update={"pareto": not any(_dominates(other, points[part.rank]) for other in points.values())})
        if part.rank in points
        else part
        for part in ranks
    )


def _point(part: RankSection) -> tuple[float, float, float] | None:
    if part.eval_loss is None or part.step_seconds is None or part.peak_memory_bytes is None:
        return None
    return part.eval_loss, part.step_seconds, float(part.peak_memory_bytes)


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Return True if one is as good everywhere and better somewhere; lower is better."""
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))

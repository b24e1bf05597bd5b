"""Claims over all looks of a study."""

from collections.abc import Iterable, Mapping, Sequence

from lorascope.analysis.estimates.looks import Differences
from lorascope.analysis.estimates.ranks import Comparison
from lorascope.analysis.verdict.claims import Claims, claims


def claims_of(comparison: Comparison, tolerance: float) -> dict[int, Claims]:
    """Test every rank of a comparison, over all its looks."""
    if len(comparison.excess) == 1:
        return claims(comparison.excess, {}, tolerance)
    return claims_over_looks(comparison.excess, comparison.looks or (comparison.differences,), tolerance)


def claims_over_looks(ranks: Iterable[int], looks: Sequence[Differences], tolerance: float) -> dict[int, Claims]:
    """Keep what any look shows: all looks together keep to the chance of error.

    After Maurer and Bretz (Statistics in Biopharmaceutical Research 5, 2013).
    """
    found: dict[int, Claims] = {}
    for look in looks:
        compared = sorted({rank for pair in look for rank in pair})
        found = join_claims(found, claims(compared, look, tolerance))
    return {rank: found[rank] for rank in ranks}


def join_claims(before: Mapping[int, Claims], now: Mapping[int, Claims]) -> dict[int, Claims]:
    """Keep what earlier looks show, and add what one more shows of its ranks."""
    found = dict(before)
    for rank, new in now.items():
        old = before.get(rank, new)
        found[rank] = Claims(
            rank=rank,
            adequate=min(old.adequate, new.adequate),
            inadequate=min(old.inadequate, new.inadequate),
            worse=min(old.worse, new.worse),
        )
    return found

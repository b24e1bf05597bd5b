"""Claims over all looks of a study."""

from collections.abc import Iterable, Sequence

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
        for rank, now in claims(compared, look, tolerance).items():
            before = found.get(rank, now)
            found[rank] = Claims(
                rank=rank,
                adequate=min(before.adequate, now.adequate),
                inadequate=min(before.inadequate, now.inadequate),
                worse=min(before.worse, now.worse),
            )
    return {rank: found[rank] for rank in ranks}

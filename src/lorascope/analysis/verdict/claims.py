"""Hypothesis tests on each rank, with control of the family-wise error rate.

Three families of claims, each with a chance of at most 5% that any of its claims is false:

- *adequate*: no rank is better by more than the tolerance. Equality must be shown; the lack of a significant difference
  shows nothing. Every other rank is asked, so that none has to be picked as the best on the same rows first
  (an intersection-union test: Berger, Technometrics 24, 1982).
- *inadequate*: some rank is better by more than the tolerance.
- *worse*: some rank is better, by however little.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lorascope.analysis.estimates.holm import holm
from lorascope.analysis.estimates.paired import LEVEL, Uncertain


@dataclass(frozen=True, kw_only=True, slots=True)
class Claims:
    """Corrected p-values of one rank, each compared with 5%."""

    rank: int
    adequate: float
    inadequate: float
    worse: float

    @property
    def is_adequate(self) -> bool:
        """True when shown to exceed no rank by more than the tolerance."""
        return self.adequate <= LEVEL

    @property
    def is_inadequate(self) -> bool:
        """True when shown to exceed some rank by more than the tolerance."""
        return self.inadequate <= LEVEL

    @property
    def is_worse(self) -> bool:
        """True when shown to exceed some rank."""
        return self.worse <= LEVEL


def claims(
    ranks: Iterable[int], differences: Mapping[tuple[int, int], Uncertain], tolerance: float
) -> dict[int, Claims]:
    """Test every rank. ``differences`` holds the loss of a minus that of b for each pair of ranks (a, b), both ways.

    A single rank is adequate: no other could be better.
    """
    names = tuple(ranks)
    adequate = [max((differences[a, b].chance_below(tolerance) for b in names if b != a), default=0.0) for a in names]
    # The rank of the lowest loss is adequate, so that at least one hypothesis of inadequacy is false
    corrected = holm(adequate, most_true=len(names) - 1)
    inadequate, worse = (shown_above(differences, names, margin) for margin in (tolerance, 0.0))
    return {
        rank: Claims(rank=rank, adequate=chance, inadequate=inadequate[rank], worse=worse[rank])
        for rank, chance in zip(names, corrected, strict=True)
    }


def shown_above(
    differences: Mapping[tuple[int, int], Uncertain], names: Sequence[int], margin: float
) -> dict[int, float]:
    """Return each rank's p-value for a loss above another's by more than the margin.

    All pairs are tested two-sided and corrected over the pairs; a rank takes the smallest of those it loses.
    """
    lost: dict[int, list[float]] = {rank: [1.0] for rank in names}
    for (rank, _), chance in pair_chances(differences, margin).items():
        lost[rank].append(chance)
    return {rank: min(found) for rank, found in lost.items()}


def pair_chances(differences: Mapping[tuple[int, int], Uncertain], margin: float) -> dict[tuple[int, int], float]:
    """Return the two-sided p-value of every pair, the rank of the higher loss first, corrected over the pairs."""
    pairs = [(a, b) for (a, b), found in differences.items() if found.value > 0 or (found.value == 0 and a < b)]
    chances = holm([differences[pair].chance_within(margin) for pair in pairs])
    return dict(zip(pairs, chances, strict=True))

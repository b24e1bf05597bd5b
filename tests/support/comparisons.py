"""Comparisons of ranks written by hand."""

from lorascope.analysis.estimates.losses import Estimate
from lorascope.analysis.estimates.paired import Uncertain
from lorascope.analysis.estimates.ranks import Comparison

SEEDS = (0, 1, 2)

Excesses = dict[int, tuple[float, float]]


def compared(excesses: Excesses, seeds: tuple[int, ...] = SEEDS, degrees: float = 1e6) -> Comparison:
    """Build a comparison from each rank's excess over the best, which is 0, and the standard error it has.

    Two ranks differ with the larger of their errors.
    """
    pairs = {
        (a, b): Uncertain(value=mine - other, variance=max(error, error_b) ** 2, degrees=degrees)
        for a, (mine, error) in excesses.items()
        for b, (other, error_b) in excesses.items()
        if a != b
    }
    best = next(rank for rank, (value, _) in excesses.items() if value == 0)
    zero = Estimate(value=0.0, low=0.0, high=0.0)
    excess = {rank: zero if rank == best else pairs[rank, best].interval() for rank in excesses}
    loss = {rank: Estimate(value=1 + e.value, low=0.9 + e.value, high=1.1 + e.value) for rank, e in excess.items()}
    return Comparison(step=80, seeds=seeds, best=best, loss=loss, excess=excess, differences=pairs)

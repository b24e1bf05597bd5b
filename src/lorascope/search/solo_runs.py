"""Solo runs that a study still has to take: a pure function of the study and its records."""

from collections.abc import Iterable
from dataclasses import dataclass

from lorascope.records import SoloRun
from lorascope.spec.schema import StudySpec


@dataclass(frozen=True, slots=True)
class SoloEffort:
    """How often and how long each rank runs alone."""

    repeats: int
    steps: int
    """Measured steps of a repeat, after one of warm-up."""


EFFORTS = {"off": SoloEffort(0, 0), "quick": SoloEffort(2, 1), "full": SoloEffort(4, 5)}
"""By the study's ``cost``."""


def pending_solo_runs(spec: StudySpec, ranks: Iterable[int], runs: Iterable[SoloRun]) -> list[tuple[int, int]]:
    """Return the (rank, repeat) that are not among ``runs``, in the order to take them."""
    done = {(run.rank, run.repeat) for run in runs}
    return [place for place in solo_order(ranks, EFFORTS[spec.cost].repeats) if place not in done]


def solo_order(ranks: Iterable[int], repeats: int) -> list[tuple[int, int]]:
    """Return (rank, repeat): ascending ranks, then descending, and so on; each pair has the same mean place."""
    ascending = sorted(ranks)
    return [(rank, repeat) for repeat in range(repeats) for rank in (ascending[::-1] if repeat % 2 else ascending)]

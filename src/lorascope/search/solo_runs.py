"""Solo runs that a study still has to take: a pure function of the study and its records."""

from collections.abc import Iterable
from dataclasses import dataclass

from lorascope.records import Arm, SoloRun
from lorascope.spec.schema import StudySpec


@dataclass(frozen=True, slots=True)
class SoloEffort:
    """How often and how long each rank runs alone."""

    repeats: int
    steps: int
    """Measured steps of a repeat, after one of warm-up."""


EFFORTS = {"off": SoloEffort(0, 0), "quick": SoloEffort(2, 1), "full": SoloEffort(4, 5)}
"""By the study's ``cost``."""


def pending_solo_runs(spec: StudySpec, arms: Iterable[Arm], runs: Iterable[SoloRun]) -> list[tuple[Arm, int]]:
    """Return each arm and repeat that are not among ``runs``, in the order to take them."""
    done = {(run.arm, run.repeat) for run in runs}
    return [place for place in solo_order(arms, EFFORTS[spec.cost].repeats) if place not in done]


def solo_order(arms: Iterable[Arm], repeats: int) -> list[tuple[Arm, int]]:
    """Return (arm, repeat): ascending arms, then descending, and so on; each pair has the same mean place."""
    ascending = sorted(arms)
    return [(arm, repeat) for repeat in range(repeats) for arm in (ascending[::-1] if repeat % 2 else ascending)]

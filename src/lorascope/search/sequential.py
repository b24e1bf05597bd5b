"""Sequential studies: which seeds they may train, and what they do next while their verdict is open.

Rows and seeds are bought where a unit of cost narrows the interval most, as in the optimal allocation of a computing
budget (Chen, Lin, Yücesan and Chick, Discrete Event Dynamic Systems 10, 2000).
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lorascope.records import GOES_ON, FurtherEvalRecord, LookRecord, TrialRecord
from lorascope.search.trials import plan_trial
from lorascope.spec.schema import StudySpec

FIRST_SEEDS = 3
"""Seeds before the first look: with two, the spread from seed to seed is hardly known."""
MOST_SEEDS = 8
ONLY_SET = ""
"""Name of the set of target modules of a study that has one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Purchase:
    """Data that a study may add before it looks again."""

    kind: Literal["rows", "seed"]
    value: int
    """Held-out rows to have, or the seed to train."""
    half_width: float
    """Half the interval that is expected with it."""
    cost: float
    """In any one unit."""


def best_purchase(purchases: Iterable[Purchase], half_width: float) -> Purchase | None:
    """Return the one that narrows the interval most for its cost; None without any.

    Args:
        purchases: what may be added.
        half_width: half the interval as it is.
    """
    return max(
        purchases,
        key=lambda found: math.log(half_width / found.half_width) / found.cost if found.half_width else math.inf,
        default=None,
    )


def sequential_seeds(spec: StudySpec) -> tuple[int, ...]:
    """Return all seeds that a sequential study may train, the study's own first."""
    further = (seed for seed in range(MOST_SEEDS + len(spec.seeds)) if seed not in spec.seeds)
    return (*spec.seeds, *further)[: max(MOST_SEEDS, len(spec.seeds))]


def first_seeds(spec: StudySpec) -> tuple[int, ...]:
    """Return the seeds that are trained before the first look."""
    return sequential_seeds(spec)[: max(FIRST_SEEDS, len(spec.seeds))] if spec.until_decided else spec.seeds


def goes_on(looks: Sequence[LookRecord]) -> bool:
    """Return True while a sequential study has another look to take."""
    return not looks or looks[-1].next in GOES_ON


def seed_rounds(spec: StudySpec, looks: Sequence[LookRecord]) -> Iterator[tuple[TrialRecord, ...]]:
    """Yield the trials of each seed that a look asked for."""
    for look in looks:
        if look.next == "seed":
            yield tuple(_trial(spec, look, rank, look.next_value) for rank in look.next_ranks)


def pending_rows(
    spec: StudySpec,
    look: LookRecord,
    held: int,
    further: Mapping[str, Sequence[FurtherEvalRecord]],
    finished: Iterable[str],
) -> list[tuple[TrialRecord, int]]:
    """Return the trials that lack held-out rows which a look asked for, or has, with the first row that each lacks.

    Args:
        spec: the study.
        look: the last one.
        held: rows on which training is evaluated.
        further: evaluations on further rows, by trial id.
        finished: ids of the trials whose adapters are there.
    """
    wanted = look.next_value if look.next == "rows" else look.rows
    seeds = (*look.seeds, look.next_value) if look.next == "seed" else look.seeds
    there, found = set(finished), []
    for rank in look.next_ranks:
        for seed in seeds:
            trial = _trial(spec, look, rank, seed)
            done = held + sum(len(record.example_nats) for record in further.get(trial.trial_id, ()))
            if trial.trial_id in there and done < wanted:
                found.append((trial, done))
    return found


def _trial(spec: StudySpec, look: LookRecord, rank: int, seed: int) -> TrialRecord:
    """Return the trial of a rank's setting at a look; a sequential study has one set of target modules."""
    return plan_trial(spec, (ONLY_SET, rank), setting=look.settings[rank], seed=seed)

"""Looks of a sequential study, with what each took."""

import math
from collections.abc import Iterable

from lorascope.analysis.estimates.joint_steps import evaluation_seconds, joint_steps
from lorascope.analysis.estimates.spending import spent
from lorascope.analysis.estimates.wall_time import wall_share
from lorascope.analysis.section import Section
from lorascope.analysis.study_data import StudyData
from lorascope.look_records import LookNext, LookRecord


class LookSection(Section):
    """One look of a sequential study."""

    look: int
    """Counted from 1."""
    ranks: tuple[int, ...]
    """Ranks that it compares: those that no earlier look settled."""
    seeds: tuple[int, ...]
    """Seeds that it compares."""
    rows: int
    """Held-out rows that it compares on."""
    information: float
    """Share of the most information that the study can have."""
    spent: float
    """Share of the chance of error of 5% that all looks so far may have used."""
    next: LookNext
    """What followed. ``rows``: more held-out rows; ``seed``: one more seed; else it is the last: ``decided``, ``steps``
    (only more steps can decide), ``exhausted`` (no further rows and seeds) or ``budget`` (no more time)."""
    next_ranks: tuple[int, ...]
    """Ranks that are in question still."""
    next_value: int
    """Held-out rows to have, or the seed to train; 0 at an end."""
    next_seconds: float
    """Time that this was expected to take; where the time did not allow it, what it would have taken."""
    seconds: float
    """Time that the look's own data took: the first seeds, or what the look before asked for."""


def look_sections(data: StudyData) -> tuple[LookSection, ...]:
    """Describe every look."""
    before = (None, *data.looks)
    return tuple(
        LookSection(
            look=look.look,
            ranks=look.ranks,
            seeds=look.seeds,
            rows=look.rows,
            information=look.information,
            spent=spent(look.information),
            next=look.next,
            next_ranks=look.next_ranks,
            next_value=look.next_value,
            next_seconds=look.next_seconds,
            seconds=_seconds(data, look, earlier),
        )
        for look, earlier in zip(data.looks, before, strict=False)
    )


def _seconds(data: StudyData, look: LookRecord, before: LookRecord | None) -> float:
    """Return the time of the training and the evaluations that a look has and the one before it had not."""
    if before is not None and before.next == "rows":
        names = [trial.trial_id for trial in data.trials if trial.seed in look.seeds]
        return _further_seconds(data, names, range(before.rows, look.rows))
    new = look.seeds if before is None else (before.next_value,)
    names = [trial.trial_id for trial in data.trials if trial.seed in new]
    trained = float(joint_steps(data.steps[name] for name in names).seconds.sum())
    evaluated = evaluation_seconds(data.evaluations[name] for name in names)
    return wall_share(data) * (trained + evaluated) + _further_seconds(data, names, range(look.rows))


def _further_seconds(data: StudyData, names: Iterable[str], rows: range) -> float:
    return math.fsum(
        record.seconds for name in names for record in data.further.get(name, ()) if record.first_row in rows
    )

"""What the parts of a run share."""

from collections.abc import Callable
from dataclasses import dataclass

from lorascope.records import EvalRecord
from lorascope.run.prepare import PreparedStudy
from lorascope.run.trackers import Tracker
from lorascope.store import StudyStore
from lorascope.store.folder import StudyFolder


@dataclass(frozen=True, kw_only=True, eq=False)
class RunContext:
    """A prepared study, its folder and store, and who follows the run."""

    study: PreparedStudy
    store: StudyStore
    folder: StudyFolder
    tracker: Tracker
    check_stop: Callable[[], None]
    """Raises Interrupted where the user asked to stop."""


def evaluations_by_trial(store: StudyStore) -> dict[str, list[EvalRecord]]:
    """Read the held-out evaluations of all trials, those of each in order."""
    found: dict[str, list[EvalRecord]] = {}
    for record in store.read(EvalRecord):
        found.setdefault(record.trial_id, []).append(record)
    return found

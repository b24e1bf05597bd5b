"""What the parts of a run share."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from lorascope.records import BudgetRecord, EvalRecord
from lorascope.run.prepare import PreparedStudy
from lorascope.run.progress import RunProgress
from lorascope.run.time_budget import TimeBudget
from lorascope.run.trackers import Tracker
from lorascope.search.work import Activity
from lorascope.store import StudyStore
from lorascope.store.folder import StudyFolder


@dataclass(frozen=True, kw_only=True, eq=False)
class RunContext:
    """A prepared study, its folder and store, and who follows the run."""

    study: PreparedStudy
    store: StudyStore
    folder: StudyFolder
    tracker: Tracker
    progress: RunProgress
    check_stop: Callable[[], None]
    """Raises Interrupted where the user asked to stop."""
    clock: TimeBudget = field(default_factory=TimeBudget)
    parallel: int = 1
    """Devices on which groups train at once; see ``Claim``."""
    has_workers: bool = False
    """True where trials train in other processes."""

    def allows(self, activity: Activity, work: float) -> bool:
        """Return True where so much work of an activity ends before the report has to be made, at the pace so far."""
        return self.clock.allows(self.progress.seconds(activity, work))

    def leave_out(self, what: str, text: str) -> None:
        """Say once that the time does not suffice for a part of the study, and remember it."""
        record = self.store.read_one(BudgetRecord)
        if record is not None and what not in record.left_out:
            self.store.put(replace(record, left_out=(*record.left_out, what)))
            self.tracker.note(f"left out, as the time budget ends: {text}")


def evaluations_by_trial(store: StudyStore) -> dict[str, list[EvalRecord]]:
    """Read the held-out evaluations of all trials, those of each in order."""
    found: dict[str, list[EvalRecord]] = {}
    for record in store.read(EvalRecord):
        found.setdefault(record.trial_id, []).append(record)
    return found

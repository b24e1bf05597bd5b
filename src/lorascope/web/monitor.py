"""Monitor one study's folder: state, newest records, series and summary, independent of language."""

import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from lorascope.analysis import StudyData, StudySummary, load_study, summarize_data
from lorascope.errors import InputError
from lorascope.spec.load import load_spec
from lorascope.spec.schema import StudySpec
from lorascope.store.folder import StudyFolder
from lorascope.store.live import LiveStore, is_uninitialized
from lorascope.web.liveness import Liveness
from lorascope.web.series import Series, SeriesReader
from lorascope.web.snapshot import Snapshot, read_snapshot
from lorascope.web.state import State, study_state

POLL_SECONDS = 0.4
_SUMMARY_SHARE = 20
"""After a summary, the next one waits this many times as long as it took: at most a twentieth of one core."""
RETRY_SECONDS = 5.0
"""Wait after a summary that failed, as it does where the store is locked for long."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """The records of a study and their summary; compared by identity."""

    data: StudyData
    summary: StudySummary


@dataclass(frozen=True, kw_only=True, eq=False)
class LiveStudy:
    """What the page shows of a study at one moment; compared by identity."""

    name: str = ""
    """Of its folder."""
    state: State = "preparing"
    problem: tuple[str, str] = ("", "")
    """Why the records cannot be read, and a remedy; empty where they can."""
    spec: StudySpec | None = None
    snapshot: Snapshot | None = None
    series: Series = field(default_factory=dict)
    result: Result | None = None
    report: bool = False
    """Whether a report was written."""


class StudyMonitor:
    """Poll one study; any thread may call.

    Args:
        folder: the study's folder; it may not exist yet.
        run_alive: whether the run that serves this page is alive; None: tell it from the files.
        detailed: also read the series and make the summary.
    """

    def __init__(self, folder: Path, *, run_alive: Callable[[], bool] | None = None, detailed: bool = True) -> None:
        self._folder = folder
        self._run_alive = run_alive
        self._detailed = detailed
        self._lock = threading.Lock()
        self._liveness = Liveness(folder)
        self._polled_at = -POLL_SECONDS
        self._study = LiveStudy(name=folder.resolve().name)
        self._series = SeriesReader()
        self._summary_from = 0.0
        self._summary_key: object = None
        self._summary_thread: threading.Thread | None = None

    @property
    def folder(self) -> Path:
        """Folder of the study."""
        return self._folder

    def poll(self) -> LiveStudy:
        """Return the study as it is; the same object while nothing changed."""
        with self._lock:
            if time.monotonic() - self._polled_at >= POLL_SECONDS:
                if self._liveness.check_files():
                    self._read()
                if self._detailed and self._study.snapshot is not None:
                    self._summarize_if_due(self._study.snapshot)
                self._polled_at = time.monotonic()
            self._set(state=self._state(), report=StudyFolder(self._folder).report("html").is_file())
            return self._study

    def _set(self, **changes: object) -> None:
        if any(getattr(self._study, name) != value for name, value in changes.items()):
            self._study = replace(self._study, **changes)  # type: ignore[arg-type]  # the names of its fields

    def _state(self) -> State:
        running = self._liveness.is_running() if self._run_alive is None else self._run_alive()
        trials = self._study.snapshot.trials if self._study.snapshot else ()
        return study_state(trials, running=running, left_open=self._liveness.left_open())

    def _read(self) -> None:
        """Read what was written. A study that cannot be read is a problem on the page, and read again at each poll."""
        study = StudyFolder(self._folder)
        if not study.is_study():
            return
        store_path = study.store
        try:
            spec = load_spec(study.spec, {})
            if store_path.is_file():
                self._read_store(store_path, spec)
            self._set(spec=spec, problem=("", ""))
        except InputError as error:
            self._report(store_path, error.problem, error.remedy)
        except sqlite3.Error as error:
            self._report(store_path, f"{store_path}: {error}")

    def _report(self, store_path: Path, problem: str, remedy: str = "") -> None:
        self._liveness.forget()
        if not is_uninitialized(store_path):
            self._set(problem=(problem, remedy))

    def _read_store(self, path: Path, spec: StudySpec) -> None:
        with LiveStore.open(path) as store, store.read_transaction():
            snapshot = read_snapshot(store, spec)
            if self._study.snapshot is not None and not _trial_ids(self._study.snapshot) <= _trial_ids(snapshot):
                # Another study replaced the first one.
                self._series, self._summary_key = SeriesReader(), None
                self._set(result=None)
            series = self._series.read(store, snapshot) if self._detailed else {}
            self._set(snapshot=snapshot, series=series)

    def _summarize_if_due(self, snapshot: Snapshot) -> None:
        """Summarize again when more than training steps is new."""
        key = snapshot.summary_key
        busy = self._summary_thread is not None and self._summary_thread.is_alive()
        if key == self._summary_key or busy or time.monotonic() < self._summary_from:
            return
        self._summary_key = key
        # In a thread: a million rows take seconds, and new points must not wait for them.
        self._summary_thread = threading.Thread(target=self._summarize, args=(key,), name="summary", daemon=True)
        self._summary_thread.start()

    def _summarize(self, key: object) -> None:
        began = time.monotonic()
        try:
            data = load_study(self._folder)
            result = Result(data=data, summary=summarize_data(data))
        except (InputError, sqlite3.Error):  # a lasting problem is reported by a poll; a passing one leaves no trace
            self._summary_from, self._summary_key = time.monotonic() + RETRY_SECONDS, None
            return
        self._summary_from = time.monotonic() + _SUMMARY_SHARE * (time.monotonic() - began)
        with self._lock:
            if key == self._summary_key:
                self._set(result=result)


def _trial_ids(snapshot: Snapshot) -> set[str]:
    return {trial.trial.trial_id for trial in snapshot.trials}

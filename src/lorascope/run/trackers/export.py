"""Bring a study to a tracker after it ran."""

from pathlib import Path

from filelock import FileLock, Timeout

from lorascope.errors import InputError, LorascopeError
from lorascope.run.trackers.experiment import TRACKERS, check_trackers, load_tracker
from lorascope.run.trackers.publish import Publisher


def export_runs(folder: Path, name: str) -> str:
    """Bring the runs of a study whose report has been written to a tracker, and return where they are.

    What is there already stays.

    Raises:
        InputError: there is no such tracker, its library is not installed, or a run reports to it.
        LorascopeError: the tracker failed.
    """
    check_trackers([name])
    lock = FileLock(tracker_lock(folder, TRACKERS[name].path), timeout=0)
    try:
        with lock:
            tracker = load_tracker(TRACKERS[name].path)(folder)
            publisher = Publisher(folder, tracker)
            publisher.publish()
            publisher.result()
            publisher.close()
            return tracker.where()
    except Timeout as error:
        raise InputError(f"the study is being reported to {name}", remedy="wait until its run has ended") from error
    except LorascopeError:
        raise
    except Exception as error:  # a tracker may raise whatever it likes
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise LorascopeError(f"{name} failed: {text}\n  -> mend that and repeat the command") from error


def tracker_lock(folder: Path, path: str) -> Path:
    """Return the file whose lock a process holds that reports a study to a tracker, given as ``module:class``."""
    return folder / f".{path.partition(':')[0].rpartition('.')[2]}.lock"

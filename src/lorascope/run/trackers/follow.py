"""The process of one tracker: reads the study's store while it runs, so that no tracker can disturb training.

Its lines on standard input are ``go`` (the study's records are there) and ``result`` (the report is written); the end
of the input means that the run ended, or was killed. Its lines on standard output are ``where TEXT``, ``failed TEXT``,
``slow`` and ``fine`` (a call of the tracker takes long; it came back). When it has all it closes that output.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from lorascope.measure.environment import mask_credentials
from lorascope.run.trackers.experiment import load_tracker
from lorascope.run.trackers.export import tracker_lock
from lorascope.run.trackers.publish import Publisher
from lorascope.store.folder import StudyFolder

SLOW_SECONDS = 5.0
"""A call of a tracker that takes longer is not waited for."""
_PASS_SECONDS = 2.0
_EXIT_SECONDS = 600.0
"""A tracker that is still busy so long after the run is ended."""
_NICENESS = 10


class _Input:
    """What the run said; read in a thread of its own."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.ended = threading.Event()
        self.has_result = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            self.has_result |= line.strip() == "result"
            self.begun.set()
        self.ended.set()
        self.begun.set()
        _exit_later()


def _exit_later() -> None:
    timer = threading.Timer(_EXIT_SECONDS, os._exit, [1])
    timer.daemon = True
    timer.start()


def follow(path: str, folder: Path, say: Callable[[str], None]) -> None:
    """Report a study until its run ends.

    Args:
        path: the tracker's class, as ``module:class``.
        folder: of the study.
        say: sends a line to the run.
    """
    heard = _Input()
    make_tracker = load_tracker(path)  # before the study begins, as imports take time
    heard.begun.wait()
    if heard.ended.is_set() and not heard.has_result and not StudyFolder(folder).store.is_file():
        return
    guard = _guard(say)
    # the process of a run that was killed may still be at work
    with guard():
        tracker = make_tracker(folder)
        lock = FileLock(tracker_lock(folder, path))
        lock.acquire()
    publisher = Publisher(folder, tracker, guard)
    is_last, told = False, False
    while not is_last:
        is_last = heard.ended.wait(_PASS_SECONDS)
        publisher.publish()
        if publisher.has_logged and not told and (where := tracker.where()):
            say(f"where {where}")
            told = True
    if heard.has_result:
        publisher.result()
    publisher.close()
    lock.release()


def _guard(say: Callable[[str], None]) -> Callable[[], AbstractContextManager[None]]:
    @contextmanager
    def guarded() -> Iterator[None]:
        slow = threading.Event()

        def tell() -> None:
            slow.set()
            say("slow")

        timer = threading.Timer(SLOW_SECONDS, tell)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            if slow.is_set():
                say("fine")

    return guarded


def main(path: str, folder: str) -> None:
    """Follow a study; whatever a tracker prints goes to standard error, and its error is a line."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    if hasattr(os, "nice"):
        os.nice(_NICENESS)

    def say(line: str) -> None:
        with suppress(OSError):  # the run has not waited
            print(line, file=lines, flush=True)

    try:
        follow(path, Path(folder), say)
    except Exception as error:  # noqa: BLE001 - a tracker may raise whatever it likes, and the study goes on
        text = " ".join(f"{type(error).__name__}: {error}".split())
        say(f"failed {mask_credentials(text)[:300]}")
    lines.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

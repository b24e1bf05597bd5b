"""Whether a run is at work in a study's folder, told from outside and without touching it."""

import time
from pathlib import Path

from lorascope.web.state import QUIET_SECONDS

_STORE_FILES = ("study.db", "study.db-wal")
Signature = tuple[tuple[int, int, int], ...]


def signature(folder: Path) -> Signature:
    """Return what changes whenever the store is written or replaced; empty where there is none."""
    found = []
    for name in _STORE_FILES:
        try:
            facts = (folder / name).stat()
        except OSError:
            continue
        found.append((facts.st_ino, facts.st_size, facts.st_mtime_ns))
    return tuple(found)


class Pulse:
    """Remembers when a store last changed, so that a clock that was set does not matter."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: Signature = ()
        self._changed_at = -QUIET_SECONDS

    def beat(self) -> bool:
        """Look once more and say whether the store changed since the last time."""
        now = signature(self._folder)
        if now == self._seen:
            return False
        if self._seen:
            self._changed_at = time.monotonic()
        elif now:
            # The first look has only the file's own time to go by.
            newest = max(changed for _, _, changed in now) / 1e9
            self._changed_at = time.monotonic() - max(0.0, time.time() - newest)
        self._seen = now
        return True

    def forget(self) -> None:
        """Take the next look for the first one."""
        self._seen = ()

    @property
    def alive(self) -> bool:
        """Whether something was written a moment ago."""
        return time.monotonic() - self._changed_at < QUIET_SECONDS

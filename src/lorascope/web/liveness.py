"""Whether a run is at work in a study's folder, told from outside and without touching it."""

import math
import socket
import time
from pathlib import Path

from lorascope.store.lock import read_owner
from lorascope.web.state import QUIET_SECONDS

_LOCK = "study.lock"
_FILES = ("study.yaml", "study.db", "study.db-wal")
Signature = tuple[tuple[int, int, int], ...]


def signature(folder: Path) -> Signature:
    """Return what changes whenever the study or its store is written or replaced; empty where there is none."""
    found = []
    for name in _FILES:
        try:
            resolved = (folder / name).stat()
        except OSError:
            continue
        found.append((resolved.st_ino, resolved.st_size, resolved.st_mtime_ns))
    return tuple(found)


class Pulse:
    """Tells whether a run is at work: by the lock a run holds, else by how long ago the store changed.

    The lock file names its owner and goes with it; one whose owner is gone says that the run was killed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: Signature = ()
        self._changed_at = -math.inf
        self._locks = False

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

    def alive(self) -> bool:
        """Say whether a run is at work."""
        owner = read_owner(self._folder / _LOCK)
        if owner is not None:
            self._locks = True
            if owner.host == socket.gethostname():
                return not owner.is_gone()
        elif self._locks:
            return False
        return time.monotonic() - self._changed_at < QUIET_SECONDS

    def left_open(self) -> bool:
        """Say whether the last run went away without closing the study."""
        return (self._folder / _LOCK).is_file() or (self._folder / "checkpoints").is_dir()

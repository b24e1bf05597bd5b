"""Tell from outside whether a run is active in a study's folder."""

import math
import socket
import time
from pathlib import Path

from lorascope.store.folder import StudyFolder
from lorascope.store.lock import read_owner

QUIET_SECONDS = 15.0
"""A run samples its process every second; without a write for this long it counts as gone."""
Signature = tuple[tuple[int, int, int], ...]


def signature(study: StudyFolder) -> Signature:
    """Return inode, size and time of the study's files; changes with every write; empty where there are none."""
    found = []
    for path in (study.spec, study.store, study.store_log):
        try:
            stat = path.stat()
        except OSError:
            continue
        found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return tuple(found)


class Liveness:
    """Liveness of a run: its lock's owner, or without a lock the time since the last write.

    The lock file names its owner and is deleted with it; a lock whose owner is gone means that the run was killed.
    """

    def __init__(self, folder: Path) -> None:
        self._study = StudyFolder(folder)
        self._seen: Signature = ()
        self._changed_at = -math.inf
        self._locks = False

    def check_files(self) -> bool:
        """Return True if the files changed since the last check."""
        now = signature(self._study)
        if now == self._seen:
            return False
        if self._seen:
            self._changed_at = time.monotonic()
        elif now:
            # At the first check only the file's own time is known.
            newest = max(changed for _, _, changed in now) / 1e9
            self._changed_at = time.monotonic() - max(0.0, time.time() - newest)
        self._seen = now
        return True

    def forget(self) -> None:
        """Treat the next check as the first."""
        self._seen = ()

    def is_running(self) -> bool:
        """Return True if a run is active."""
        owner = read_owner(self._study.lock)
        if owner is not None:
            self._locks = True
            if owner.host == socket.gethostname():
                return not owner.is_gone()
        elif self._locks:
            return False
        return time.monotonic() - self._changed_at < QUIET_SECONDS

    def left_open(self) -> bool:
        """Return True if the last run ended without closing the study."""
        return self._study.lock.is_file() or self._study.checkpoints.is_dir()

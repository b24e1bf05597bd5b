"""Lock a study's folder so that one process at a time runs the study.

The operating system holds the lock and releases it when the process ends, however it ends. The file names the owner:
for messages, for the live page, and for file systems without locks.
"""

import contextlib
import errno
import json
import os
import socket
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from filelock import lock_descriptor

from lorascope.errors import InputError

_UNSUPPORTED = {errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL}
_OPEN_FILES_STAY = sys.platform == "win32"
"""True where the system refuses to remove a file that a process has open."""
_REMOVE_TRIES = 20
_RETRY_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """The process that runs a study."""

    host: str
    pid: int
    started: float
    """When the process began, in seconds since 1970: another process may get its number later."""

    @classmethod
    def this_process(cls) -> Self:
        """Describe the calling process."""
        return cls(host=socket.gethostname(), pid=os.getpid(), started=psutil.Process().create_time())

    def is_gone(self) -> bool:
        """Return True if the process is known to have ended; False for a process of another machine."""
        if self.host != socket.gethostname():
            return False
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.started) > 1 or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False

    def to_bytes(self) -> bytes:
        """Encode as JSON behind one space, as other processes cannot read the locked first byte on Windows."""
        return b" " + json.dumps(asdict(self)).encode()


def read_owner(path: Path) -> Owner | None:
    """Read the present or last owner of a lock; None without the file or where it names no owner."""
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(1)
            fields = json.loads(file.read())
        return Owner(host=str(fields["host"]), pid=int(fields["pid"]), started=float(fields["started"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


class FolderLock:
    """A lock that its ``with`` block releases; the file exists only while it is held or after its owner was killed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._number: int | None = None

    def acquire(self) -> None:
        """Take the lock; do nothing if this object holds it.

        Raises:
            InputError: another run holds it.
        """
        while self._number is None:
            number = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                self._take(number)
                # The owner before may have removed the file after this process opened it.
                if _OPEN_FILES_STAY or os.path.samestat(os.fstat(number), self._path.stat()):
                    self._number = number
            except FileNotFoundError:
                continue
            finally:
                if self._number is None:
                    os.close(number)
        os.truncate(self._number, 0)
        os.write(self._number, Owner.this_process().to_bytes())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._number is None:
            return
        number, self._number = self._number, None
        if not _OPEN_FILES_STAY:  # while it is locked: once closed, the file may be another run's
            self._remove()
        os.close(number)
        if _OPEN_FILES_STAY:  # fails where another run took it, and has it open
            self._remove()

    def _remove(self) -> None:
        for _ in range(_REMOVE_TRIES if _OPEN_FILES_STAY else 1):
            with contextlib.suppress(OSError):  # a lock file that is left behind locks nothing
                self._path.unlink(missing_ok=True)
                return
            time.sleep(_RETRY_SECONDS)  # the live page may be reading it

    def _take(self, number: int) -> None:
        owner = read_owner(self._path)
        try:
            taken = not lock_descriptor(number, blocking=False)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            taken = owner is not None and not owner.is_gone()
        if taken:
            raise self._in_use(owner)

    def _in_use(self, owner: Owner | None) -> InputError:
        who = f"process {owner.pid} on {owner.host}" if owner else "another process"
        return InputError(
            f"{self._path.parent} is in use: {who} runs this study",
            remedy="wait for it or stop it; choose another folder with --out for another study"
            f" (if that process is no more, delete {self._path})",
        )

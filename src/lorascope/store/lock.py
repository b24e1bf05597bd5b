"""One run at a time in a study's folder.

The operating system holds the lock and lets go of it when the process ends, however it ends. The file says who holds
it, for people, for whoever watches, and for file systems that lock nothing.
"""

import contextlib
import errno
import json
import os
import socket
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from lorascope.errors import InputError

if sys.platform != "win32":
    import fcntl

_UNSUPPORTED = {errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL}


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """The process that runs a study."""

    host: str
    pid: int
    started: float
    """When the process began, in seconds since 1970: another process may get its number later."""

    @classmethod
    def this_process(cls) -> Self:
        """Describe the process that asks."""
        return cls(host=socket.gethostname(), pid=os.getpid(), started=psutil.Process().create_time())

    def is_gone(self) -> bool:
        """Say whether the process is known to have ended; one of another machine never is."""
        if self.host != socket.gethostname():
            return False
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.started) > 1 or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False


def read_owner(path: Path) -> Owner | None:
    """Read who holds a lock or held it last; None where nobody does, or the file says nothing of use."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return Owner(host=str(fields["host"]), pid=int(fields["pid"]), started=float(fields["started"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _lock_file(number: int) -> bool:
    """Lock an open file until it is closed; False where the system cannot. Raises BlockingIOError when it is taken."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True


class FolderLock:
    """Held inside its ``with`` block; the file goes with it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._number: int | None = None

    def acquire(self) -> None:
        """Take the lock; does nothing where this object holds it.

        Raises:
            InputError: a run that lives holds it.
        """
        while self._number is None:
            number = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                self._take(number)
                # who held it before may have removed the file after this one was opened
                if os.path.samestat(os.fstat(number), self._path.stat()):
                    self._number = number
            except FileNotFoundError:
                continue
            finally:
                if self._number is None:
                    os.close(number)
        os.truncate(self._number, 0)
        os.write(self._number, json.dumps(asdict(Owner.this_process())).encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._number is not None:
            with contextlib.suppress(OSError):  # a lock file that is left behind locks nothing
                self._path.unlink()
            os.close(self._number)
            self._number = None

    def _take(self, number: int) -> None:
        owner = read_owner(self._path)
        try:
            locked = _lock_file(number)
        except BlockingIOError:
            raise self._taken(owner) from None
        if not locked and owner is not None and not owner.is_gone():
            raise self._taken(owner)

    def _taken(self, owner: Owner | None) -> InputError:
        who = f"process {owner.pid} on {owner.host}" if owner else "another process"
        return InputError(
            f"{self._path.parent} is in use: {who} runs this study",
            remedy="wait for it or stop it; choose another folder with --out for another study"
            f" (if that process is no more, delete {self._path})",
        )

"""Child process of ``python_tests``: limits itself, then runs code and its tests, and says so once they have passed.

It is run as a script by ``sandbox``, with the folder that it may write to as working directory. What it reads from
standard input is JSON: ``code``, ``tests``, ``seconds``, ``memory_bytes``, ``word`` to write to file descriptor ``to``.
"""

import contextlib
import ctypes
import json
import os
import resource
import sys
from pathlib import Path

_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_FILE_BYTES = 16 << 20
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = frozenset({
    "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate",
    "os.utime", "os.setxattr", "os.removexattr", "os.chflags", "os.mkfifo", "os.mknod",
})  # fmt: skip
_REFUSED = (
    "socket.", "subprocess.", "ctypes.", "os.exec", "os.fork", "os.kill", "os.posix_spawn", "os.spawn", "os.system",
    "pty.", "sys._debugmallocstats", "signal.pthread_kill", "syslog.",
)  # fmt: skip


def leave_network() -> None:
    """Move to a network without a way out, where the kernel lets an ordinary user do so."""
    with contextlib.suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        if library.unshare(_NEW_USER | _NEW_NETWORK):
            library.unshare(_NEW_NETWORK)


def limit(seconds: int, memory_bytes: int) -> None:
    """Limit time, memory, files and processes."""
    limits = {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_FSIZE: _FILE_BYTES,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 1,
    }
    for kind, most in limits.items():
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (most, most))


def refuse_outside(folder: str) -> None:
    """Let nothing in this process write outside of a folder, start a process or open a socket."""

    def is_inside(path: str | bytes | os.PathLike[str]) -> bool:
        whole = os.path.realpath(os.fsdecode(path))
        return whole == "/dev/null" or os.path.commonpath([folder, whole]) == folder

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event.startswith(_REFUSED):
            raise PermissionError(f"{event} is refused")
        writes = event in _CHANGES
        if event == "open":
            _, mode, flags = arguments
            writes = bool(isinstance(flags, int) and flags & _WRITES) or bool(set(str(mode)) & set("wax+"))
            arguments = arguments[:1]
        if writes and not all(is_inside(one) for one in arguments if isinstance(one, str | bytes | os.PathLike)):
            raise PermissionError(f"{event} outside of {folder}")

    sys.addaudithook(watch)


def main() -> None:
    """Run what standard input asks for."""
    order = json.load(sys.stdin)
    leave_network()
    limit(order["seconds"], order["memory_bytes"])
    refuse_outside(os.path.realpath(Path.cwd()))
    names: dict[str, object] = {"__name__": "answer"}
    exec(compile(order["code"], "answer", "exec"), names)  # noqa: S102 - what this process is for
    exec(compile(order["tests"], "tests", "exec"), names)  # noqa: S102
    os.write(order["to"], order["word"].encode())


if __name__ == "__main__":
    main()

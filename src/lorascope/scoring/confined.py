"""Child process of ``python_tests``: limits itself, then runs code and its tests, and says so once they have passed.

It is run as a script by ``sandbox``, with the folder that it may write to as working directory. What it reads from
standard input is JSON: ``code``, ``tests``, ``seconds``, ``memory_bytes``, ``word`` to write to file descriptor ``to``.
"""

import _posixsubprocess
import contextlib
import ctypes
import json
import os
import resource
import socket
import sys
import types
from pathlib import Path

_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_FILE_BYTES = 16 << 20
_MORE_THREADS = 64
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = frozenset({
    "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate",
    "os.utime", "os.setxattr", "os.removexattr", "os.chflags", "sqlite3.connect",
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
        resource.RLIMIT_NPROC: _own_threads() + _MORE_THREADS,
    }
    for kind, most in limits.items():
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (most, most))


def _own_threads() -> int:
    """Count the user's threads, which the limit of processes counts; 0 where the system does not tell."""
    processes = [one for one in Path("/proc").glob("[0-9]*") if _is_own(one)]
    return sum(len(list((one / "task").glob("*"))) for one in processes)


def _is_own(process: Path) -> bool:
    try:
        return process.stat().st_uid == os.getuid()
    except OSError:  # it has ended
        return False


def _refuse(*_arguments: object, **_more: object) -> None:
    raise PermissionError("processes and special files are refused")


def refuse_outside(folder: str) -> None:
    """Let nothing in this process write outside of a folder, start a process or open a socket to another process."""
    for module, name in ((os, "mkfifo"), (os, "mknod"), (_posixsubprocess, "fork_exec")):  # they have no audit event
        setattr(module, name, _refuse)

    def is_inside(path: str | bytes | os.PathLike[str]) -> bool:
        name = os.fsdecode(path)
        whole = os.path.realpath(name)
        if name.startswith("file:"):  # an address of SQLite
            return False
        return whole == "/dev/null" or os.path.commonpath([folder, whole]) == folder

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event == "socket.__new__" and arguments[1] == socket.AF_UNIX:
            return  # asyncio wakes itself by a pair; to connect or to bind one is refused
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
    answer = sys.modules["answer"] = types.ModuleType("answer")  # dataclasses look their module up
    exec(compile(order["code"], "answer", "exec"), vars(answer))  # noqa: S102 - what this process is for
    exec(compile(order["tests"], "tests", "exec"), vars(answer))  # noqa: S102
    os.write(order["to"], order["word"].encode())


if __name__ == "__main__":
    main()

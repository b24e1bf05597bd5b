"""The lock of a study: one owner at a time, however the one before ended."""

import errno
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lorascope.errors import InputError
from lorascope.store import FolderLock, lock
from lorascope.store.lock import Owner, read_owner

HOLD = """
import sys
from pathlib import Path
from lorascope.store import FolderLock
with FolderLock(Path(sys.argv[1])) as held:
    held.acquire()
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study.lock"


def holder(path: Path) -> subprocess.Popen[str]:
    program = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "held\n"
    return program


def take(path: Path) -> None:
    with FolderLock(path) as held:
        held.acquire()


def test_lock_refuses_a_second_process_while_the_first_lives(path: Path) -> None:
    with holder(path) as program:
        owner = read_owner(path)
        assert owner is not None
        assert (owner.pid, owner.is_gone()) == (program.pid, False)
        with pytest.raises(InputError, match=rf"in use: process {program.pid} on .*\n.*--out"):
            take(path)
        assert read_owner(path) == owner
        program.send_signal(signal.SIGKILL)
        program.wait()
        assert path.exists()
        assert owner.is_gone()
        take(path)
    assert not path.exists()


def test_lock_refuses_a_second_lock_of_the_same_process(path: Path) -> None:
    with FolderLock(path) as held:
        held.acquire()
        held.acquire()
        with pytest.raises(InputError, match="in use"):
            take(path)
    take(path)


def test_lock_that_is_not_acquired_leaves_no_file(path: Path) -> None:
    with FolderLock(path):
        pass
    assert not path.exists()


def test_lock_owner_is_not_a_process_that_reuses_its_pid() -> None:
    own = Owner.this_process()
    assert not own.is_gone()
    assert replace(own, started=own.started - 100).is_gone()
    assert not replace(own, host="elsewhere", pid=1).is_gone()


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that locks nothing."""

    def flock(number: int, operation: int) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr("fcntl.flock", flock)


@pytest.mark.usefixtures("no_locks")
def test_lock_without_flock_checks_the_owner(path: Path) -> None:
    with holder(path) as program:
        with pytest.raises(InputError, match=f"process {program.pid}"):
            take(path)
        program.kill()
        program.wait()
        take(path)
    elsewhere = replace(Owner.this_process(), host="elsewhere")
    path.write_bytes(elsewhere.to_bytes())
    with pytest.raises(InputError, match=r"on elsewhere .*\n.*delete .*study\.lock"):
        take(path)


@pytest.mark.parametrize("content", ["", "{", " {", " []", ' {"host": 1}', "\x00" * 40])
def test_lock_file_without_an_owner_is_ignored(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")
    assert read_owner(path) is None
    take(path)


@pytest.fixture
def open_files_stay(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Windows: a file that a process has open cannot be removed. Returns the calls that closed and removed."""
    calls: list[str] = []
    unlink, close = Path.unlink, os.close

    def refuse_open(path: Path, *, missing_ok: bool = False) -> None:
        calls.append("remove")
        if calls.count("close") == 0 or calls.count("remove") == 1:  # at first a reader has it open
            raise PermissionError(errno.EACCES, "the process cannot access the file", str(path))
        unlink(path, missing_ok=missing_ok)

    def note_close(number: int) -> None:
        calls.append("close")
        close(number)

    monkeypatch.setattr(lock, "_OPEN_FILES_STAY", True)
    monkeypatch.setattr(Path, "unlink", refuse_open)
    monkeypatch.setattr(os, "close", note_close)
    return calls


def test_lock_is_closed_before_it_is_removed_on_windows(path: Path, open_files_stay: list[str]) -> None:
    with FolderLock(path) as held:
        held.acquire()
        assert path.exists()
        open_files_stay.clear()
    assert open_files_stay == ["close", "remove", "remove"]
    assert not path.exists()


def test_lock_owner_is_read_without_the_byte_windows_locks(path: Path) -> None:
    with FolderLock(path) as held:
        held.acquire()
        assert path.read_bytes()[:1] == b" "
        assert read_owner(path) == Owner.this_process()


def test_lock_is_held_by_one_of_many_processes(tmp_path: Path, path: Path) -> None:
    """Each that gets in writes and removes a mark; two at once would find each other's."""
    program = """
import sys, time
from pathlib import Path
from lorascope.errors import InputError
from lorascope.store import FolderLock
mark, times = Path(sys.argv[2]), 0
while times < 20:
    try:
        with FolderLock(Path(sys.argv[1])) as held:
            held.acquire()
            mark.mkdir()
            time.sleep(0.001)
            mark.rmdir()
            times += 1
    except InputError:
        time.sleep(0.0005)
"""
    arguments = [sys.executable, "-c", program, str(path), str(tmp_path / "mark")]
    programs = [
        subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    results = [program.communicate() for program in programs]
    assert all(program.returncode == 0 for program in programs), results

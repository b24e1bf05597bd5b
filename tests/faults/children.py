"""Real studies in forked processes that die, tear their writes or run out of disk where they are told to.

Torch is imported once, in the parent, which then computes nothing: every study runs in a child of its own, with its own
process number, lock, store and signals. Only the seconds of starting Python are saved.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
NONE, KILL, TEAR, FULL = range(4)
DONE, REFUSED, STOPPED, CRASHED = 0, 2, 1, 70
"""How a child ends: as it should; by InputError; by another error of ours, or the disk's; by anything else."""


def preloaded() -> ctypes.CDLL:
    """Return the library that makes things go wrong; where it is not loaded, start this program again with it."""
    library = os.environ.get("LORASCOPE_FAULTS")
    if library is None:
        place = Path(os.environ.get("TMPDIR", "/tmp")) / f"lorascope-faults-{os.getpid()}"
        place.mkdir()
        built = place / "faults.so"
        command = ["cc", "-O1", "-shared", "-fPIC", "-o", str(built), str(HERE / "faults.c"), "-ldl"]
        subprocess.run(command, check=True)
        more = {"LORASCOPE_FAULTS": str(built), "LD_PRELOAD": str(built), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | more)
    os.environ.pop("LD_PRELOAD", None)  # compilers and git need not count
    faults = ctypes.CDLL(library)
    faults.fault_plan.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long]
    faults.fault_count.restype = ctypes.c_long
    return faults


@dataclass(frozen=True)
class Plan:
    """What goes wrong in a child."""

    kind: int = NONE
    at: int = 0
    """The operation on a file of the study at which it does."""
    after_seconds: float | None = None
    """Killed so long after its start, wherever it is."""
    back_after_seconds: float | None = None
    """A full disk has space again so long after the first write that failed."""


@dataclass(frozen=True)
class Ended:
    """How a child ended."""

    code: int | None
    """None where it was killed."""
    operations: int
    message: str


def in_child(work: Callable[[], object], plan: Plan, folder: Path, faults: ctypes.CDLL) -> Ended:
    """Run work in a child that watches ``folder``; its last words are its message."""
    log = folder.with_suffix(".log")
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        _be_child(work, plan, folder, faults, log)
    if plan.after_seconds is not None:
        time.sleep(plan.after_seconds)
        os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    counted, _, message = (
        text.rpartition("operations: ")[2].partition("\n") if "operations: " in text else ("0", "", text)
    )
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
    return Ended(code=code, operations=int(counted), message=message.strip())


def _be_child(work: Callable[[], object], plan: Plan, folder: Path, faults: ctypes.CDLL, log: Path) -> None:
    code = CRASHED
    try:
        with log.open("w", encoding="utf-8") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        faults.fault_plan(str(folder).encode(), plan.kind, plan.at)
        with _space_comes_back(plan, folder, faults):
            code, message = _outcome(work)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"operations: {faults.fault_count()}\n{message}")
    finally:
        os._exit(code)  # never into the parent's code


def _outcome(work: Callable[[], object]) -> tuple[int, str]:
    """Do the work, and tell its errors apart as the program does."""
    import sqlite3

    from lorascope.errors import InputError, LorascopeError

    try:
        work()
    except InputError as error:
        return REFUSED, str(error)
    except (LorascopeError, OSError, sqlite3.Error) as error:
        return STOPPED, str(error)
    except BaseException:
        return CRASHED, traceback.format_exc()
    return DONE, ""


@contextlib.contextmanager
def _space_comes_back(plan: Plan, folder: Path, faults: ctypes.CDLL) -> Iterator[None]:
    def watch() -> None:
        while faults.fault_count() < plan.at:
            time.sleep(0.01)
        time.sleep(plan.back_after_seconds or 0)
        faults.fault_plan(str(folder).encode(), NONE, 0)

    if plan.back_after_seconds is not None:
        threading.Thread(target=watch, daemon=True).start()
    yield


def copy_study(folder: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    return Path(shutil.copytree(folder, to))

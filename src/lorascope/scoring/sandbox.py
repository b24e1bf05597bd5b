"""Run Python code of a model in a process of its own, with limits, until it is done or its time is up."""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

CHILD = Path(__file__).parent / "confined.py"


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one run may take."""

    seconds: int = 10
    """Of the clock, and of the processor."""
    memory_bytes: int = 1 << 30
    """Of address space."""


def passes(code: str, tests: str, limits: Limits) -> bool:
    """Return True if the code runs and then its tests do, both to their ends.

    The process has a new folder, which is removed afterwards, and no variables of this one's environment. It and all
    that it started are killed at the end.
    """
    read, write = os.pipe()
    word = secrets.token_hex(16)
    try:
        with tempfile.TemporaryDirectory(prefix="answer-", ignore_cleanup_errors=True) as folder:
            order = {"code": code, "tests": tests, "word": word, "to": write} | asdict(limits)
            _run(json.dumps(order), folder, write, limits)
        os.set_blocking(read, False)
        with contextlib.suppress(BlockingIOError):  # nothing was written
            return os.read(read, 2 * len(word)) == word.encode()
        return False
    finally:
        os.close(read)
        os.close(write)


def _run(order: str, folder: str, write: int, limits: Limits) -> None:
    process = subprocess.Popen(  # noqa: S603 - what it runs is read from its input, within limits
        [sys.executable, "-I", "-B", str(CHILD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HOME": folder, "TMPDIR": folder},
        pass_fds=(write,),
        start_new_session=True,
    )
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(order.encode(), timeout=limits.seconds)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

"""Run lorascope in a process and visit its page in a browser."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

WAIT_SECONDS = 300
"""Ends a wait that hangs; a test waits for a condition, never for a time."""
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


@dataclass
class Visit:
    """One visitor; remembers what went wrong and which hosts were asked."""

    page: Any
    errors: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)

    def wait(self, expression: str) -> None:
        """Wait until a JavaScript expression is true; the page's policy forbids Playwright's own way of waiting."""
        end = time.monotonic() + WAIT_SECONDS
        while not self.page.evaluate(f"!!({expression})"):
            assert time.monotonic() < end, f"{expression} {self.errors}"
            self.page.wait_for_timeout(50)

    def state(self, state: str) -> None:
        """Wait until the study is shown to be in a state."""
        self.wait(f"document.querySelector('[data-study]').dataset.state === '{state}'")

    def points(self, condition: str) -> None:
        """Wait until the number of points drawn as training loss meets a condition."""
        self.wait(f"Number(document.querySelector('[data-chart=train_loss]')?.dataset.points) {condition}")

    def lines(self, kind: str) -> dict[str, list[list[float]]]:
        """Return the points (x, value, lowest, highest) that the page holds, by line."""
        lines = f"[...page.studies.values()][0].charts.lines.{kind} ?? {{}}"
        points = f"Object.entries({lines}).map(([name, line]) => [name, line.points])"
        found: dict[str, list[list[float]]] = self.page.evaluate(
            f"import('/assets/page.js').then(page => Object.fromEntries({points}))"
        )
        return found

    def wait_for_lines(self, kind: str, last: Callable[[], dict[str, float]]) -> dict[str, list[list[float]]]:
        """Wait until each line ends at its ``last`` horizontal value, and return the lines."""
        end = time.monotonic() + WAIT_SECONDS
        while {name: line[-1][0] for name, line in self.lines(kind).items()} != last():
            assert time.monotonic() < end, self.errors
            self.page.wait_for_timeout(50)
        return self.lines(kind)


@contextmanager
def program(*arguments: object, stdin: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run lorascope in a process, and kill it afterwards if it still runs."""
    command = [sys.executable, "-m", "lorascope", *map(str, arguments)]
    started = subprocess.Popen(
        command, text=True, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ENVIRONMENT
    )  # fmt: skip
    try:
        yield started
    finally:
        if started.poll() is None:
            started.send_signal(signal.SIGKILL)
        started.wait()
        assert started.stdout is not None
        started.stdout.close()


def address_in(started: subprocess.Popen[str]) -> str:
    """Read what a program prints up to the address of its page."""
    assert started.stdout is not None
    read = []
    for line in started.stdout:
        read.append(line)
        found = re.search(r"http://\S+", line)
        if found:
            return found[0].rstrip("/")
    raise AssertionError("".join(read))

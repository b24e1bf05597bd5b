"""Programs whose page is looked at, and one visitor of it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

WAIT_SECONDS = 60
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


@dataclass
class Visit:
    """One visitor; remembers what went wrong and which hosts were asked."""

    page: Any
    errors: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)

    def wait(self, expression: str) -> None:
        """Wait until a JavaScript expression holds; Playwright's own way of waiting is refused by the page's policy."""
        end = time.monotonic() + WAIT_SECONDS
        while not self.page.evaluate(f"!!({expression})"):
            assert time.monotonic() < end, f"{expression} {self.errors}"
            self.page.wait_for_timeout(50)

    def state(self, state: str) -> None:
        """Wait until the study is shown to be in a state."""
        self.wait(f"document.querySelector('[data-study]').dataset.state === '{state}'")

    def points(self, condition: str) -> None:
        """Wait until the number of points drawn as training loss fulfils a condition."""
        self.wait(f"Number(document.querySelector('[data-chart=train_loss]')?.dataset.points) {condition}")

    def lines(self, kind: str) -> dict[str, list[list[float]]]:
        """Return the points the page holds."""
        code = f"import('/assets/page.js').then(page => [...page.studies.values()][0].charts.lines.{kind} ?? {{}})"
        found: dict[str, list[list[float]]] = self.page.evaluate(code)
        return found


@contextmanager
def program(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run lorascope in a process of its own, and see that it is gone afterwards."""
    command = [sys.executable, "-m", "lorascope", *map(str, arguments)]
    started = subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ENVIRONMENT
    )  # fmt: skip
    try:
        yield started
    finally:
        if started.poll() is None:
            started.send_signal(signal.SIGKILL)
        started.wait(30)
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

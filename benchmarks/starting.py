"""How long lorascope takes to start, as its user meets it: the installed command in a process of its own."""

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

_COMMAND = str(Path(sys.executable).with_name("lorascope"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """Seconds from the start of the process."""

    training_begins: float
    first_step_done: float
    """The held-out loss of the base comes before that step and is in it."""


def start_seconds(dataset: str) -> Start:
    """Run a study of one step and return when it came to it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [_COMMAND, "run", "--dataset", dataset, "--split", "train[:64]", "--eval-examples", "2"]
        command += ["--ranks", "8", "--max-steps", "1", "--cost", "off", "--out", f"{folder}/study", "--json"]
        began = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            seen = [(line, time.monotonic() - began) for line in process.stderr]
    if process.returncode != 0:
        raise SystemExit("".join(line for line, _ in seen))
    return Start(
        training_begins=next(seconds for line, seconds in seen if line == "training\n"),
        first_step_done=next(seconds for line, seconds in seen if line.startswith("step 1/1: smoothed train loss")),
    )


def help_seconds() -> float:
    """Return the seconds of ``lorascope --help``."""
    began = time.monotonic()
    subprocess.run([_COMMAND, "--help"], stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - began

"""Making the processes that are measured. Nothing here loads torch: a child's peak memory would begin with it."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jobs import Job, Result

_HERE = Path(__file__).parent
_SHOWN_LINES = 15


def measure(job: Job) -> Result:
    """Carry a job out in a process of its own.

    Raises:
        SystemExit: the process failed; its last lines are the message.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "result.json"
        started = job.model_copy(update={"started": time.monotonic()})
        _run("worker.py", started.model_dump_json(), str(answer))
        return Result.model_validate_json(answer.read_text(encoding="utf-8"))


def prepare_model(name: str) -> str:
    """Bring a benchmark's model into the cache and return what ``model`` of a study calls it."""
    return _run("models.py", name).strip()


def _run(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(_HERE / script), *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        last = "\n".join(done.stderr.splitlines()[-_SHOWN_LINES:])
        raise SystemExit(f"{script} {' '.join(arguments)} failed:\n{last}")
    return done.stdout

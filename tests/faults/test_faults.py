"""A short version of ``make faults``: real studies are killed, starved and damaged, and end with the same bytes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parent / "run.py"


@pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="preloads a library, which is compiled"
)
def test_faults_leave_the_same_bytes_or_a_refusal(tmp_path: Path) -> None:
    arguments = ["--kills", "5", "--full", "3", "--damages", "6", "--json", str(tmp_path / "found.json")]
    done = subprocess.run(
        [sys.executable, str(RUN), *arguments], capture_output=True, text=True, check=False,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert sum(found.values()) == 5 + 3 + 6 + 6
    assert found["the same bytes"] >= 3

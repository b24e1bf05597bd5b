"""Scripts to play to a view, and runs replaced under the command line."""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from lorascope.errors import Interrupted
from lorascope.run.trackers import Tracker
from lorascope.spec.schema import StudySpec
from support.cli import Asked, FakeRun, Script


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """What the command line asks for, without a run: every start is interrupted at once."""
    calls = []

    def run_study(spec: StudySpec, folder: Path, *, trackers: Sequence[Tracker], command: str, began: float) -> None:
        calls.append((spec, folder, command))
        raise Interrupted("stopped")

    monkeypatch.setitem(sys.modules, "lorascope.run.study", SimpleNamespace(run_study=run_study))
    return calls


@pytest.fixture
def fake_run(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    fake = FakeRun()
    monkeypatch.setitem(sys.modules, "lorascope.run.study", SimpleNamespace(run_study=fake))
    return fake

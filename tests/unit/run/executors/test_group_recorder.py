"""How often states are saved."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lorascope.run.executors import Event, group_recorder
from lorascope.run.executors.group_recorder import GroupRecorder


class Clock:
    """Stands still but for what saving takes."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def silent(event: Event) -> None:
    raise AssertionError(event)


@pytest.mark.parametrize(("save_seconds", "share"), [(0.01, 0.0001), (2.9, 0.0097), (30.0, 0.01)])
def test_checkpoints_take_at_most_two_percent_of_the_run(
    monkeypatch: pytest.MonkeyPatch, save_seconds: float, share: float
) -> None:
    clock, saved = Clock(), []

    def save(path: Path, trials: object) -> None:
        clock.now += save_seconds
        saved.append(clock.now)

    monkeypatch.setattr(group_recorder, "time", clock)
    monkeypatch.setattr(group_recorder, "save_checkpoint", save)
    order: Any = SimpleNamespace(shard=SimpleNamespace(checkpoint=Path("round-0.safetensors")))
    study: Any = None
    made = GroupRecorder(study, order, silent, lambda: None)
    began = clock.now
    while clock.now < began + 100_000:
        clock.now += 1.0  # a step
        made.checkpoint_if_due([])
    assert saved[0] - began < 302 + save_seconds
    assert len(saved) > 30
    spent = save_seconds * len(saved) / (clock.now - began)
    assert spent < 0.02
    assert spent == pytest.approx(share, rel=0.7)

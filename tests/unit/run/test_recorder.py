"""How often states are saved."""

from pathlib import Path

import pytest

from lorascope.run import recorder
from lorascope.run.recorder import StudyRecorder


class Clock:
    """Stands still but for what saving takes."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Quiet:
    def note(self, text: str) -> None:
        raise AssertionError(text)


@pytest.mark.parametrize(("save_seconds", "share"), [(0.01, 0.0001), (2.9, 0.0097), (30.0, 0.01)])
def test_saving_takes_at_most_two_percent_of_the_run(
    monkeypatch: pytest.MonkeyPatch, save_seconds: float, share: float
) -> None:
    clock, saved = Clock(), []

    def save(path: Path, trials: object) -> None:
        clock.now += save_seconds
        saved.append(clock.now)

    monkeypatch.setattr(recorder, "time", clock)
    monkeypatch.setattr(recorder, "save_checkpoint", save)
    made = StudyRecorder(None, Quiet(), lambda trial: None, lambda: None)
    made.begin_shard(Path("round-0.safetensors"))
    began = clock.now
    while clock.now < began + 100_000:
        clock.now += 1.0  # a step
        made.checkpoint_if_due([])
    assert saved[0] - began < 302 + save_seconds
    assert len(saved) > 30
    spent = save_seconds * len(saved) / (clock.now - began)
    assert spent < 0.02
    assert spent == pytest.approx(share, rel=0.7)

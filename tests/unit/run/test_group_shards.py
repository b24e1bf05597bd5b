"""Which checkpoints a shard is cut from."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lorascope.engine.checkpoint import previous
from lorascope.run import group_shards
from lorascope.run.group_shards import GroupCheckpoints, GroupShard


def trial(rank: int) -> Any:
    return SimpleNamespace(trial_id=f"r{rank}", rank=rank)


@pytest.mark.parametrize("saved", [True, False])
def test_a_shard_is_cut_from_its_own_checkpoints_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: bool
) -> None:
    """Another worker may be writing any other file."""
    own, others = (trial(2), trial(4)), (trial(8), trial(16))
    folder: Any = SimpleNamespace(checkpoint=lambda number: tmp_path / "round-0.safetensors")
    store: Any = SimpleNamespace(count_steps=lambda trial_id, steps: steps, outcomes=dict)
    search_round: Any = SimpleNamespace(number=0, trials=(*own, *others))
    made = GroupCheckpoints(
        folder=folder, search_round=search_round, groups=(own, others), store=store, note=lambda text: None
    )
    mine, origin = tmp_path / "round-0-mine.safetensors", tmp_path / "round-0-origin.safetensors"
    steps = {mine: 7, previous(mine): 5, origin: 3} if saved else {origin: 3}
    for path in (*steps, tmp_path / "round-0-other.safetensors"):
        path.touch()

    def read_steps(path: Path) -> dict[str, int]:
        return {"r2": steps[path], "r4": steps[path]}  # KeyError at any other file

    monkeypatch.setattr(group_shards, "read_steps", read_steps)
    shard = GroupShard(trials=own, checkpoint=mine, steps_done=3, origin=origin)
    found = [(one.trials, one.steps_done, one.origin) for one in made.halves(shard)]
    expected = (7, mine) if saved else (3, origin)
    assert found == [((own[0],), *expected), ((own[1],), *expected)]

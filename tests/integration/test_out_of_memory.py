"""Out of memory: smaller micro-batches, then fewer trials at once, then one trial less."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from lorascope.engine.forward import FrozenModel, MicroBatchRow
from lorascope.engine.trial import TrainingTrial
from lorascope.spec.schema import StudySpec
from support.studies import Left, checkpoint_every_step, execute, read_study, study_of

LIMITED = Path(__file__).parents[1] / "faults" / "memory_limit.py"


@pytest.fixture(scope="session")
def spec(model_folders: Mapping[str, str], rows_file: str) -> StudySpec:
    """Two ranks at three learning rates, of which some leave early."""
    return study_of(
        model_folders["llama"], rows_file, learning_rates=(1e-3, 1e-2, 1e-1), max_steps=5, eval_steps=2,
        max_grid_extensions=0, dtype="float64",
    )  # fmt: skip


@pytest.fixture(scope="session")
def undisturbed(spec: StudySpec, tmp_path_factory: pytest.TempPathFactory) -> Left:
    folder = tmp_path_factory.mktemp("undisturbed") / "study"
    execute(spec, folder)
    return read_study(folder)


Fails = Callable[[FrozenModel, Sequence[MicroBatchRow]], bool]


@pytest.fixture
def memory_ends(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fails], None]:
    """From now on, micro-batches for which ``fails`` is true run out of memory."""

    def when(fails: Fails) -> None:
        original = FrozenModel.row_nats

        def row_nats(self: FrozenModel, rows: Sequence[MicroBatchRow], **others: Any) -> list[torch.Tensor]:
            if fails(self, rows):
                torch.empty(10**17)
            return original(self, rows, **others)

        monkeypatch.setattr(FrozenModel, "row_nats", row_nats)

    return when


def trials_at_once(frozen: FrozenModel) -> int:
    return len(next(iter(frozen.layers.values())).adapters)


def assert_same_numbers(left: Left, undisturbed: Left) -> None:
    """In float64, where only the order of sums differs."""
    assert left.outcomes.keys() == undisturbed.outcomes.keys()
    for name, outcome in undisturbed.outcomes.items():
        assert (left.outcomes[name].state, left.outcomes[name].steps) == (outcome.state, outcome.steps)
        nats = [record.nats for record in undisturbed.steps[name]]
        assert [record.nats for record in left.steps[name]] == pytest.approx(nats, rel=1e-9)
        for now, then in zip(left.evaluations[name], undisturbed.evaluations[name], strict=True):
            assert now.step == then.step
            assert now.example_nats == pytest.approx(then.example_nats, rel=1e-9)


def test_out_of_memory_shrinks_microbatches(
    spec: StudySpec, undisturbed: Left, tmp_path: Path, memory_ends: Callable[[Fails], None]
) -> None:
    memory_ends(lambda frozen, rows: sum(row.example.n_tokens for row in rows) > 70)
    watcher = execute(spec, tmp_path / "study")
    said = [re.search(r"memory ran out: from now on at most (\d+) tokens", note) for note in watcher.notes]
    tokens = [int(found[1]) for found in said if found]
    assert tokens
    assert tokens == sorted(tokens, reverse=True)
    assert tokens[-1] <= 70
    assert_same_numbers(read_study(tmp_path / "study"), undisturbed)


def test_out_of_memory_in_backward_repeats_the_step(
    spec: StudySpec, undisturbed: Left, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients of earlier micro-batches are discarded."""
    original, calls = torch.Tensor.backward, []

    def backward(self: torch.Tensor, *arguments: Any, **others: Any) -> None:
        calls.append(1)
        original(self, *arguments, **others)
        if len(calls) == 3:
            raise MemoryError

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    execute(spec, tmp_path / "study")
    assert len(calls) > 3
    assert_same_numbers(read_study(tmp_path / "study"), undisturbed)


@pytest.mark.parametrize("most", [5, 3, 2, 1])
def test_out_of_memory_splits_the_group_into_shards(
    spec: StudySpec, undisturbed: Left, tmp_path: Path, memory_ends: Callable[[Fails], None], most: int
) -> None:
    memory_ends(lambda frozen, rows: trials_at_once(frozen) > most)
    watcher = execute(spec, tmp_path / "study")
    assert any("memory does not hold 6 trials at once" in note for note in watcher.notes)
    left = read_study(tmp_path / "study")
    if most >= 3:  # a rank's learning rates stay together, and stop as they do in the whole group
        assert_same_numbers(left, undisturbed)
    for name in undisturbed.steps:
        shared = min(len(left.steps[name]), len(undisturbed.steps[name]))
        assert shared >= 1
        nats = [record.nats for record in undisturbed.steps[name][:shared]]
        assert [record.nats for record in left.steps[name][:shared]] == pytest.approx(nats, rel=1e-9)
    shared_steps = Counter((record.step, record.group) for records in left.steps.values() for record in records)
    assert max(shared_steps.values()) == min(most, 3)  # six are halved
    assert Counter(record.group for records in undisturbed.steps.values() for record in records[:1]) == {0: 6}
    # alone, a learning rate is compared with those that trained before it
    assert {outcome.state for outcome in left.outcomes.values()} <= {"finished", "stopped"}
    assert not (tmp_path / "study" / "checkpoints").exists()


def test_group_shards_resume_after_a_kill(
    spec: StudySpec, undisturbed: Left, tmp_path: Path, memory_ends: Callable[[Fails], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    class Killed(BaseException):
        pass

    def at_step(done: int) -> None:
        seen.append(done)
        if len(seen) == 8:  # in the second part
            raise Killed

    seen: list[int] = []
    checkpoint_every_step(monkeypatch)
    memory_ends(lambda frozen, rows: trials_at_once(frozen) > 3)
    with pytest.raises(Killed):
        execute(spec, tmp_path / "study", at_step)
    watcher = execute(spec, tmp_path / "study")
    assert seen == [1, 2, 3, 4, 5, 1, 2, 3]
    assert watcher.steps == [3, 4, 5]
    assert_same_numbers(read_study(tmp_path / "study"), undisturbed)


def test_out_of_memory_of_a_trial_alone_ends_that_trial(
    spec: StudySpec, undisturbed: Left, tmp_path: Path, memory_ends: Callable[[Fails], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """It has the numbers of the steps it did, and the next run tries it again and nothing else."""
    original = TrainingTrial.update

    def update(self: TrainingTrial, **arguments: float) -> float:
        if self.record.rank == 4 and self.steps_done == 2:
            raise MemoryError("no more")
        return original(self, **arguments)

    checkpoint_every_step(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(TrainingTrial, "update", update)
        execute(spec, tmp_path / "study")
    left = read_study(tmp_path / "study")
    for name, outcome in left.outcomes.items():
        if name.startswith("r4"):
            assert outcome.state in {"oom", "stopped"}
            assert outcome.steps == len(left.steps[name]) <= 2
        else:
            assert outcome == undisturbed.outcomes[name]
    assert {o.state for n, o in left.outcomes.items() if n.startswith("r4")} >= {"oom"}
    watcher = execute(spec, tmp_path / "study")
    assert {outcome.trial_id[:2] for outcome in watcher.outcomes if outcome.state == "running"} == {"r4"}
    assert set(watcher.steps) == {3, 4, 5}
    assert {o.state for o in read_study(tmp_path / "study").outcomes.values()} == {"finished", "stopped"}


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process as Linux does")
def test_memory_limited_process_has_the_same_losses(tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(LIMITED), str(tmp_path)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["enough"]["lowered"] is False
    assert found["tight"]["lowered"] is True
    assert found["tight"]["states"] == ["finished"]
    assert found["tight"]["nats"] == pytest.approx(found["enough"]["nats"], rel=1e-5)
    assert "oom" in found["hopeless"]["states"]

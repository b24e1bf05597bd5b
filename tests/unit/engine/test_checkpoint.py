import errno
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lorascope.engine import checkpoint
from lorascope.engine.checkpoint import load_checkpoint, previous, read_steps, save_checkpoint
from lorascope.engine.forward import FrozenModel
from lorascope.engine.trial import TrainingTrial
from lorascope.errors import LorascopeError
from lorascope.search.trials import plan_trials
from lorascope.spec.schema import StudySpec
from support.groups import make_spec, prepared, run_group
from support.messages import verbatim


@pytest.fixture(scope="module")
def frozen() -> FrozenModel:
    return prepared("llama", dtype=torch.float32)


@pytest.fixture(scope="module")
def spec() -> StudySpec:
    return make_spec(ranks=(2, 4), max_steps=3)


def fresh(spec: StudySpec, frozen: FrozenModel) -> list[TrainingTrial]:
    return [TrainingTrial(record, spec, frozen.layers, torch.float32) for record in plan_trials(spec)]


def state(trial: TrainingTrial) -> dict[str, torch.Tensor]:
    return {"weights": trial.adapter.flat.detach(), **trial.optimizer.state.get(trial.adapter.flat, {})}


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


def test_checkpoint_round_trips_bit_for_bit(spec: StudySpec, frozen: FrozenModel, tmp_path: Path) -> None:
    trials = list(run_group(spec, frozen=frozen).trials.values())
    path = tmp_path / "checkpoints" / "group.safetensors"
    save_checkpoint(path, trials)
    assert names(path) == ["group.safetensors"]
    assert read_steps(path) == {"r2": 3, "r4": 3}
    again = fresh(spec, frozen)
    load_checkpoint(path, again)
    for new, old in zip(again, trials, strict=True):
        assert new.steps_done == old.steps_done
        assert state(new).keys() == state(old).keys() == {"weights", "step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(value, state(old)[name]) for name, value in state(new).items())


def test_checkpoint_loads_one_of_several_trials(spec: StudySpec, frozen: FrozenModel, tmp_path: Path) -> None:
    trials = list(run_group(spec, frozen=frozen).trials.values())
    save_checkpoint(tmp_path / "group.safetensors", trials)
    alone = fresh(spec, frozen)[1:]
    load_checkpoint(tmp_path / "group.safetensors", alone)
    assert torch.equal(alone[0].adapter.flat, trials[1].adapter.flat)


def test_checkpoint_omits_stopped_trials(spec: StudySpec, frozen: FrozenModel, tmp_path: Path) -> None:
    trials = fresh(spec, frozen)
    trials[0].diverged = verbatim("for a reason")
    save_checkpoint(tmp_path / "group.safetensors", trials)
    assert read_steps(tmp_path / "group.safetensors") == {"r4": 0}


def test_checkpoint_holds_trials_before_their_first_step(spec: StudySpec, frozen: FrozenModel, tmp_path: Path) -> None:
    path = tmp_path / "group.safetensors"
    trials = fresh(spec, frozen)
    save_checkpoint(path, trials)
    again = fresh(spec, frozen)
    with torch.no_grad():
        again[0].adapter.flat.fill_(7.0)
    load_checkpoint(path, again)
    assert torch.equal(again[0].adapter.flat, trials[0].adapter.flat)
    assert again[0].steps_done == 0
    assert not again[0].optimizer.state


def test_checkpoint_keeps_the_one_before(spec: StudySpec, frozen: FrozenModel, tmp_path: Path) -> None:
    path = tmp_path / "group.safetensors"
    trials = fresh(spec, frozen)
    for steps in (1, 2, 3):
        for trial in trials:
            trial.steps_done = steps
        save_checkpoint(path, trials)
    assert names(path) == ["group.previous.safetensors", "group.safetensors"]
    assert (read_steps(previous(path))["r2"], read_steps(path)["r2"]) == (2, 3)


def test_checkpoint_save_failure_keeps_earlier_ones(
    spec: StudySpec, frozen: FrozenModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "group.safetensors"
    trials = fresh(spec, frozen)
    save_checkpoint(path, trials)
    before = path.read_bytes()

    def save_half(tensors: object, file: Path, **unused: object) -> None:
        file.write_bytes(before[:100])
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr("lorascope.modeling.adapters.tensor_file.save_file", save_half)
    trials[0].steps_done = 9
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, trials)
    assert path.read_bytes() == before


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def without_steps(path: Path) -> None:
    save_file(load_file(path), path)


def with_a_weight_changed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def with_a_step_added(path: Path) -> None:
    """A header that is read without complaint, and says something else."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"]["steps"] = header["__metadata__"]["steps"].replace("0", "1")
    changed = json.dumps(header, separators=(",", ":")).encode().ljust(size)
    path.write_bytes(struct.pack("<Q", len(changed)) + changed + data[8 + size :])


@pytest.mark.parametrize("damage", [cut, emptied, without_steps, with_a_weight_changed, with_a_step_added])
def test_damaged_checkpoint_is_named_with_a_remedy(
    spec: StudySpec, frozen: FrozenModel, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "group.safetensors"
    save_checkpoint(path, fresh(spec, frozen))
    damage(path)
    for read in (read_steps, lambda path: load_checkpoint(path, fresh(spec, frozen))):
        with pytest.raises(LorascopeError, match=r"group\.safetensors cannot be used.*\n.*delete it"):
            read(path)


def test_checkpoint_read_error_is_not_damage(
    spec: StudySpec, frozen: FrozenModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "group.safetensors"
    save_checkpoint(path, fresh(spec, frozen))

    def fails(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(checkpoint, "safe_open", fails)
    with pytest.raises(OSError, match="Input/output error"):
        read_steps(path)


def test_checkpoint_of_other_trials_is_refused(spec: StudySpec, frozen: FrozenModel, tmp_path: Path) -> None:
    path = tmp_path / "group.safetensors"
    save_checkpoint(path, fresh(spec, frozen))
    for other in (make_spec(ranks=(8,)), make_spec(ranks=(2, 4), target_modules=("q_proj",))):
        model = prepared("llama", dtype=torch.float32)
        if other.target_modules:
            model.layers.clear()
            model.layers.update({n: layer for n, layer in frozen.layers.items() if n.endswith("q_proj")})
        with pytest.raises(LorascopeError, match="cannot be used"):
            load_checkpoint(path, fresh(other, model))

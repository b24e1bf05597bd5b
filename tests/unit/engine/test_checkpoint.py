from pathlib import Path

import pytest
import torch
from packs import make_spec, prepared, run_pack
from safetensors.torch import load_file, save_file

from lorascope.engine.checkpoint import checkpoint_steps, load_checkpoint, save_checkpoint
from lorascope.engine.forward import FrozenModel
from lorascope.engine.trial import TrainingTrial
from lorascope.errors import LorascopeError
from lorascope.spec.plan import plan_trials
from lorascope.spec.schema import StudySpec


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


def test_trials_come_back_bit_for_bit(spec: StudySpec, frozen: FrozenModel, tmp_path: Path) -> None:
    trials = list(run_pack(spec, frozen=frozen).trials.values())
    trials[1].diverged = "for a reason"
    path = tmp_path / "checkpoints" / "pack.safetensors"
    assert checkpoint_steps(path) == 0
    save_checkpoint(path, trials)
    assert [file.name for file in path.parent.iterdir()] == ["pack.safetensors"]
    assert checkpoint_steps(path) == 3
    again = fresh(spec, frozen)
    load_checkpoint(path, again)
    for new, old in zip(again, trials, strict=True):
        assert (new.steps_done, new.diverged) == (old.steps_done, old.diverged)
        assert state(new).keys() == state(old).keys() == {"weights", "step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(value, state(old)[name]) for name, value in state(new).items())


def test_trials_that_have_not_begun_come_back_too(spec: StudySpec, frozen: FrozenModel, tmp_path: Path) -> None:
    path = tmp_path / "pack.safetensors"
    trials = fresh(spec, frozen)
    save_checkpoint(path, trials)
    again = fresh(spec, frozen)
    with torch.no_grad():
        again[0].adapter.flat.fill_(7.0)
    load_checkpoint(path, again)
    assert torch.equal(again[0].adapter.flat, trials[0].adapter.flat)
    assert again[0].steps_done == 0
    assert not again[0].optimizer.state


def test_a_save_that_fails_leaves_the_last_one(
    spec: StudySpec, frozen: FrozenModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pack.safetensors"
    trials = fresh(spec, frozen)
    save_checkpoint(path, trials)
    before = path.read_bytes()

    def save_half(tensors: object, file: Path, **unused: object) -> None:
        file.write_bytes(before[:100])
        raise OSError("no space left on device")

    monkeypatch.setattr("lorascope.engine.checkpoint.save_file", save_half)
    trials[0].steps_done = 9
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(path, trials)
    assert path.read_bytes() == before


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def without_progress(path: Path) -> None:
    save_file(load_file(path), path)


@pytest.mark.parametrize("damage", [cut, emptied, without_progress])
def test_a_damaged_file_is_named_with_the_remedy(
    spec: StudySpec, frozen: FrozenModel, tmp_path: Path, damage: object
) -> None:
    path = tmp_path / "pack.safetensors"
    save_checkpoint(path, fresh(spec, frozen))
    damage(path)
    for read in (checkpoint_steps, lambda path: load_checkpoint(path, fresh(spec, frozen))):
        with pytest.raises(LorascopeError, match=r"pack\.safetensors cannot be used.*\n.*delete it"):
            read(path)


def test_a_checkpoint_of_other_trials_is_refused(spec: StudySpec, frozen: FrozenModel, tmp_path: Path) -> None:
    path = tmp_path / "pack.safetensors"
    save_checkpoint(path, fresh(spec, frozen))
    for other in (make_spec(ranks=(8,)), make_spec(ranks=(2, 4), target_modules=("q_proj",))):
        model = prepared("llama", dtype=torch.float32)
        if other.target_modules:
            model.layers.clear()
            model.layers.update({n: layer for n, layer in frozen.layers.items() if n.endswith("q_proj")})
        with pytest.raises(LorascopeError, match="cannot be used"):
            load_checkpoint(path, fresh(other, model))

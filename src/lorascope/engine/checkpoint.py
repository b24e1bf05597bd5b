"""Checkpoints of trials, from which training continues with the same numbers.

Row order, dropout and the learning rate are functions of the step, and the store knows which trials stopped early. So a
checkpoint holds weights, AdamW's averages and the step. Two are kept: if the newer one is damaged, training continues
from the one before.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from lorascope.atomic import sync_folder
from lorascope.engine.trial import TrainingTrial
from lorascope.errors import LorascopeError
from lorascope.modeling.adapters.tensor_file import write_tensors

_AVERAGES = ("exp_avg", "exp_avg_sq")
_DAMAGE = (SafetensorError, AttributeError, KeyError, TypeError, ValueError)
"""Errors of reading a damaged file. An unreadable disk is none of them: the file may be sound."""


def save_checkpoint(path: Path, trials: Sequence[TrainingTrial]) -> None:
    """Write the state of the trials that still train, and keep the state before as ``*.previous.safetensors``.

    The file appears under its name only when it is complete and on disk.

    Raises:
        OSError: it cannot be written; the states before are as they were.
    """
    tensors: dict[str, torch.Tensor] = {}
    steps = {}
    for trial in (trial for trial in trials if not trial.has_left):
        name = trial.record.trial_id
        steps[name] = trial.steps_done
        tensors[f"{name}.weights"] = trial.adapter.flat.detach()
        state = trial.optimizer.state.get(trial.adapter.flat, {})
        for average in _AVERAGES:
            if average in state:
                tensors[f"{name}.{average}"] = state[average]
    progress = json.dumps(steps)
    path.parent.mkdir(parents=True, exist_ok=True)
    newest = path.with_suffix(".new.safetensors")
    write_tensors(newest, tensors, {"steps": progress, "sha256": _digest(progress, tensors)})
    if path.exists():
        path.replace(previous(path))
    newest.replace(path)
    sync_folder(path.parent)


def previous(path: Path) -> Path:
    """Return the path of the checkpoint before the last one."""
    return path.with_suffix(".previous.safetensors")


def read_steps(path: Path) -> dict[str, int]:
    """Return how many steps each trial in a checkpoint has done, after comparing the content with its checksum.

    Raises:
        LorascopeError: the file is damaged.
    """
    with _readable(path), safe_open(path, framework="pt") as file:
        return _verified_steps(file)


def load_checkpoint(path: Path, trials: Sequence[TrainingTrial]) -> None:
    """Bring freshly made trials to the saved state.

    Raises:
        LorascopeError: the file is damaged or belongs to other trials.
    """
    with _readable(path), safe_open(path, framework="pt") as file:
        steps = _verified_steps(file)
        for trial in trials:
            _restore(trial, steps[trial.record.trial_id], file)


def _digest(progress: str, tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(progress.encode())
    for name in sorted(tensors):
        _add(digest, name, tensors[name])
    return digest.hexdigest()


def _add(digest: "hashlib._Hash", name: str, tensor: torch.Tensor) -> None:
    digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
    digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)


def _verified_steps(file: safe_open) -> dict[str, int]:
    metadata = file.metadata()
    digest = hashlib.sha256(metadata["steps"].encode())
    for name in sorted(file.keys()):  # one tensor at a time in memory
        _add(digest, name, file.get_tensor(name))
    if digest.hexdigest() != metadata["sha256"]:
        raise ValueError("its content does not match its checksum")
    return {name: int(steps) for name, steps in json.loads(metadata["steps"]).items()}


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise LorascopeError(
            f"the checkpoint {path} cannot be used: {type(error).__name__}: {error}\n"
            "  -> delete it, and what lies beside it, to train these trials from the start"
        ) from error


def _restore(trial: TrainingTrial, steps_done: int, file: safe_open) -> None:
    name, flat = trial.record.trial_id, trial.adapter.flat
    weights = file.get_tensor(f"{name}.weights")
    if weights.shape != flat.shape:
        raise ValueError(f"{name} has {weights.numel()} parameters in it, not {flat.numel()}")
    trial.steps_done = steps_done
    with torch.no_grad():
        flat.copy_(weights)
    if steps_done:
        averages = {average: file.get_tensor(f"{name}.{average}").to(flat.device) for average in _AVERAGES}
        step = torch.tensor(float(steps_done), device=flat.device if flat.is_cuda else "cpu")
        trial.optimizer.state[flat] = {"step": step, **averages}

"""The state of a pack on disk, enough to go on with the same numbers.

Row order, dropout and the learning rate are functions of the step, so weights, AdamW's averages and the step are all
there is to keep.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lorascope.engine.trial import TrainingTrial
from lorascope.errors import LorascopeError

_AVERAGES = ("exp_avg", "exp_avg_sq")


def save_checkpoint(path: Path, trials: Sequence[TrainingTrial]) -> None:
    """Write the pack's state; the file appears under its name only when it is complete and on disk."""
    tensors: dict[str, torch.Tensor] = {}
    progress = {}
    for trial in trials:
        name = trial.record.trial_id
        progress[name] = {"steps_done": trial.steps_done, "diverged": trial.diverged, "stopped": trial.stopped}
        tensors[f"{name}.weights"] = trial.adapter.flat.detach()
        state = trial.optimizer.state.get(trial.adapter.flat, {})
        for average in _AVERAGES:
            if average in state:
                tensors[f"{name}.{average}"] = state[average]
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".partial")
    save_file(tensors, aside, metadata={"progress": json.dumps(progress)})
    with aside.open("rb+") as file:
        os.fsync(file.fileno())
    aside.replace(path)


def checkpoint_steps(path: Path) -> int:
    """Return how many steps the trial that is furthest has done; 0 where there is no checkpoint.

    Raises:
        LorascopeError: the file is damaged.
    """
    if not path.exists():
        return 0
    with _readable(path), safe_open(path, framework="pt") as file:
        return max(int(trial["steps_done"]) for trial in json.loads(file.metadata()["progress"]).values())


def load_checkpoint(path: Path, trials: Sequence[TrainingTrial]) -> None:
    """Bring freshly made trials to the saved state.

    Raises:
        LorascopeError: the file is damaged or belongs to other trials.
    """
    with _readable(path), safe_open(path, framework="pt") as file:
        progress = json.loads(file.metadata()["progress"])
        for trial in trials:
            _restore(trial, progress[trial.record.trial_id], file)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise LorascopeError(
            f"the checkpoint {path} cannot be used: {error}\n  -> delete it to train these trials from the start"
        ) from error


def _restore(trial: TrainingTrial, progress: dict[str, object], file: safe_open) -> None:
    name, flat = trial.record.trial_id, trial.adapter.flat
    trial.steps_done, trial.diverged = int(str(progress["steps_done"])), str(progress["diverged"])
    trial.stopped = str(progress["stopped"])
    with torch.no_grad():
        flat.copy_(file.get_tensor(f"{name}.weights"))
    trial.adapter.refresh()
    if trial.steps_done:
        averages = {average: file.get_tensor(f"{name}.{average}").to(flat.device) for average in _AVERAGES}
        step = torch.tensor(float(trial.steps_done), device=flat.device if flat.is_cuda else "cpu")
        trial.optimizer.state[flat] = {"step": step, **averages}

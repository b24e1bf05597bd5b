"""Adapters in the study folder: one folder a trial, and one a rank, such as ``r128``, for its best trial."""

import contextlib
import os
import shutil
from collections.abc import Mapping
from functools import partial

import torch

from lorascope.atomic import new_folder
from lorascope.engine.forward import FrozenModel
from lorascope.engine.trial import TrainingTrial
from lorascope.modeling.adapters.adapter import Adapter, AdapterShape
from lorascope.modeling.adapters.peft_io import read_modules, save_peft
from lorascope.modeling.adapters.stored_adapter import Modules
from lorascope.modeling.adapters.svd import Update
from lorascope.records import Arm, TrialOutcome, TrialRecord
from lorascope.run.context import RunContext, evaluations_by_trial
from lorascope.run.prepare import PreparedStudy
from lorascope.search.best import best_settings, latest_losses, representative_trials, trials_at_best
from lorascope.store import StudyStore
from lorascope.store.folder import StudyFolder


def save_adapter(folder: StudyFolder, study: PreparedStudy, trial: TrainingTrial) -> None:
    """Write a trained adapter in PEFT's format to the trial's folder, complete or not at all."""
    with new_folder(folder.trial_adapter(trial.record.trial_id), replace=True) as made:
        save_peft(
            made,
            trial.adapter.layers,
            study.frozen.layers,
            base=study.source.path,
            rank=trial.record.rank,
            lora_alpha=trial.record.lora_alpha,
            rslora=study.spec.alpha_rule == "rslora",
            dropout=study.spec.lora_dropout,
            modules=trial.adapter.copies,
            rank_pattern=study.spec.rank_pattern,
            alpha_pattern=study.spec.alpha_pattern,
        )


def attach_updates(run: RunContext, trial_id: str, updates: Mapping[str, Update]) -> None:
    """Make these updates, by layer, the model's one adapter, with the modules that the trial trained whole."""
    run.study.frozen.attach([trial_adapter(run, trial_id, updates)])


def trial_adapter(run: RunContext, trial_id: str, updates: Mapping[str, Update]) -> Adapter:
    """Return an adapter that makes these updates, by layer, with the modules that the trial trained whole."""
    return make_adapter(run.study.frozen, updates, read_modules(run.folder.trial_adapter(trial_id)))


def make_adapter(frozen: FrozenModel, updates: Mapping[str, Update], modules: Modules) -> Adapter:
    """Return an adapter that makes these updates, by layer, with these weights of modules that were trained whole."""
    some = next(iter(updates.values()))
    own = {name: (len(update.A), update.scale) for name, update in updates.items()}
    shape = AdapterShape(rank=len(some.A), scale=some.scale, dropout=0.0, seed=0, own=own)
    layers = {name: frozen.layers[name] for name in updates}
    adapter = Adapter(layers, shape, frozen.modules_to_save, compute_dtype=frozen.model.dtype)
    with torch.no_grad():
        for name, layer in adapter.layers.items():
            layer.A.copy_(updates[name].A)
            layer.B.copy_(updates[name].B)
        for name, weights in modules.items():
            for key, weight in weights.items():
                adapter.copies[name][key].copy_(weight)
    return adapter


def best_trials(folder: StudyFolder, store: StudyStore) -> dict[Arm, str]:
    """Return the trial whose adapter stands for each arm, ranks ascending: the first seed at its best alpha and rate.

    An arm of which no such trial finished is left out.
    """
    trials, outcomes = store.read(TrialRecord), store.outcomes()
    settings = best_settings(trials, latest_losses(outcomes, evaluations_by_trial(store)))
    return representative_trials(trials, settings, partial(_is_usable, folder, outcomes))


def _is_usable(folder: StudyFolder, outcomes: Mapping[str, TrialOutcome], trial_id: str) -> bool:
    finished = trial_id in outcomes and outcomes[trial_id].state == "finished"
    return finished and folder.trial_adapter(trial_id).is_dir()


def scored_trials(folder: StudyFolder, store: StudyStore) -> dict[str, Arm]:
    """Return the trials whose answers metrics compare, every seed of each arm at its best setting, and their arms."""
    trials, outcomes = store.read(TrialRecord), store.outcomes()
    settings = best_settings(trials, latest_losses(outcomes, evaluations_by_trial(store)))
    return trials_at_best(trials, settings, partial(_is_usable, folder, outcomes))


def choose_adapters(folder: StudyFolder, store: StudyStore) -> None:
    """Link each rank's folder to the adapter that stands for the rank, in each set of target modules."""
    for arm, trial_id in best_trials(folder, store).items():
        source, chosen = folder.trial_adapter(trial_id), folder.arm_adapter(arm)
        if source != chosen:
            with new_folder(chosen, replace=True) as made:
                shutil.copytree(source, made, copy_function=_link, dirs_exist_ok=True)


def _link(source: str, target: str) -> None:
    with contextlib.suppress(OSError):
        os.link(source, target)
        return
    shutil.copy2(source, target)

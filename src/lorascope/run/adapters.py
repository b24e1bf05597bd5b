"""Adapters in the study folder: one folder a trial, and ``r128`` for each rank's best."""

import contextlib
import os
import shutil

from lorascope.analysis import summarize
from lorascope.atomic import sync_folder
from lorascope.engine.trial import TrainingTrial
from lorascope.modeling.adapters.peft_io import save_peft
from lorascope.run.prepare import PreparedStudy
from lorascope.store.folder import StudyFolder


def save_adapter(place: StudyFolder, study: PreparedStudy, trial: TrainingTrial) -> None:
    """Write a trained adapter in PEFT's format to ``adapters/<trial>``, which appears when it is complete."""
    folder = place.adapters / trial.record.trial_id
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)  # a kill leaves files there, also such as safetensors names at random
    save_peft(
        aside,
        trial.adapter.layers,
        study.frozen.layers,
        base=study.source.path,
        rank=trial.record.rank,
        lora_alpha=trial.record.lora_alpha,
        rslora=study.spec.alpha_rule == "rslora",
        dropout=study.spec.lora_dropout,
    )
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    sync_folder(folder.parent)


def best_trials(place: StudyFolder) -> dict[int, str]:
    """Name the trial whose adapter stands for each rank: the first seed at its best learning rate, by rank, ascending.

    A rank of which no such trial finished is left out.
    """
    summary = summarize(place.path)
    best: dict[int, str] = {}
    for rank in summary.ranks:
        for trial in summary.trials:
            wanted = (trial.rank, trial.learning_rate) == (rank.rank, rank.best_learning_rate)
            if wanted and trial.outcome == "finished" and (place.adapters / trial.trial_id).is_dir():
                best.setdefault(rank.rank, trial.trial_id)
    return best


def choose_adapters(place: StudyFolder) -> None:
    """Make ``adapters/r<rank>`` the adapter of each rank's best learning rate and first seed, by links."""
    for rank, trial_id in best_trials(place).items():
        source, chosen = place.adapters / trial_id, place.adapters / f"r{rank}"
        if source != chosen:
            shutil.rmtree(chosen, ignore_errors=True)
            shutil.copytree(source, chosen, copy_function=_link)


def _link(source: str, target: str) -> None:
    with contextlib.suppress(OSError):
        os.link(source, target)
        return
    shutil.copy2(source, target)

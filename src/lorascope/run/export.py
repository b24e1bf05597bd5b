"""Hand one rank's adapter over, as it is or merged into its base."""

import shutil
from pathlib import Path

import torch

from lorascope.errors import InputError
from lorascope.modeling.base import load_model, load_tokenizer, locate_model
from lorascope.modeling.peft_io import CONFIG, merge_peft
from lorascope.run.folder import StudyFolder
from lorascope.spec.load import load_spec
from lorascope.store import StudyStore


def export_adapter(folder: Path, rank: int, to: Path, *, merge: bool) -> None:
    """Copy the adapter of a rank to a new folder, or write the base model with the adapter merged in.

    Raises:
        InputError: there is no such study or rank, the rank has no adapter yet, or the target exists.
    """
    place = StudyFolder(folder)
    with StudyStore.open(place.store) as store:
        facts, ranks = store.facts(), sorted({trial.rank for trial in store.trials()})
    if rank not in ranks:
        raise InputError(f"the study has no rank {rank}", remedy=f"its ranks are {', '.join(map(str, ranks))}")
    source = place.adapters / f"r{rank}"
    if facts is None or not (source / CONFIG).is_file():
        raise InputError(f"rank {rank} has no finished adapter yet", remedy="run the study to its end first")
    if to.exists():
        raise InputError(f"{to} exists already", remedy="choose a new folder with --to")
    if not merge:
        shutil.copytree(source, to)
        return
    spec = load_spec(place.spec, {})
    base = locate_model(spec.model, trust_remote_code=spec.trust_remote_code)
    model = load_model(base, dtype=getattr(torch, facts.dtype), device=torch.device("cpu"))
    merge_peft(model, source)
    model.save_pretrained(to)
    load_tokenizer(base).save_pretrained(to)

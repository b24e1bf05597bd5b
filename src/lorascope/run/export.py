"""Export a rank's adapter: as it is, truncated, or merged into its base model."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from lorascope.atomic import new_folder
from lorascope.errors import InputError
from lorascope.modeling.adapters.peft_io import merge_peft, truncate_peft
from lorascope.modeling.adapters.stored_adapter import CONFIG, WEIGHTS
from lorascope.modeling.load import hash_weights, load_model, load_tokenizer, locate_model, save_model
from lorascope.records import Arm, ResolvedStudy, TrialRecord
from lorascope.search.target_sets import find_set
from lorascope.search.trials import saved_rank
from lorascope.spec.load import load_spec
from lorascope.store import StudyStore
from lorascope.store.folder import StudyFolder, check_writable


def export_adapter(
    folder: Path, rank: int, to: Path, *, target_modules: str | None = None, truncate: int | None = None, merge: bool
) -> None:
    """Write the adapter of a rank to a new folder, or the base model with the adapter merged in.

    Args:
        folder: the study's folder.
        rank: its adapter at the best learning rate is exported.
        to: a folder that does not exist.
        target_modules: the set of target modules, where the study has several.
        truncate: a smaller rank to truncate the adapter to, by the singular values of each layer; None: as it is.
        merge: write the whole model.

    Raises:
        InputError: there is no such study, rank or set, the rank has no adapter yet or cannot be truncated to that
            rank, or the target exists.
    """
    study = StudyFolder(folder)
    resolved, source = find_adapter(study, rank, target_modules)
    saved = saved_rank(load_spec(study.spec, {}), rank)
    if truncate is not None and not 1 <= truncate < saved:
        what = f"an adapter of rank {rank}" + ("" if saved == rank else f", saved with rank {saved},")
        raise InputError(
            f"{what} cannot be truncated to rank {truncate}",
            remedy=f"give --truncate a rank from 1 to {saved - 1}" if saved > 1 else "leave --truncate out",
        )
    if to.exists():
        raise InputError(f"{to} exists already", remedy="choose a new folder with --to")
    check_writable(to, flag="--to")
    with new_folder(to) as made, TemporaryDirectory(dir=to.parent) as spare:
        adapter = Path(spare) if merge else made
        if truncate is not None:
            truncate_peft(source, adapter, truncate)
        else:
            for name in (CONFIG, WEIGHTS):
                shutil.copy2(source / name, adapter / name)
        if merge:
            _write_merged(study, resolved, adapter, made)


def find_adapter(study: StudyFolder, rank: int, target_modules: str | None) -> tuple[ResolvedStudy, Path]:
    """Return what a study came to and the folder of a rank's adapter. Raises InputError where there is none."""
    with StudyStore.open(study.store) as store:
        resolved, ranks = store.read_one(ResolvedStudy), sorted({trial.rank for trial in store.read(TrialRecord)})
    if rank not in ranks:
        raise InputError(f"the study has no rank {rank}", remedy=f"its ranks are {', '.join(map(str, ranks))}")
    arm = (find_set(load_spec(study.spec, {}), target_modules), rank)
    source = study.arm_adapter(arm)
    if arm in _diverged(study):
        raise InputError(
            f"every trial of rank {rank} diverged, so that it has no adapter",
            remedy="start a new study with lower learning_rates",
        )
    if resolved is None or not all((source / name).is_file() for name in (CONFIG, WEIGHTS)):
        raise InputError(
            f"there is no adapter of rank {rank} in {source}",
            remedy="run the study to its end; if it is complete, bring the adapter's files back from a copy",
        )
    for name in (CONFIG, WEIGHTS):
        if not (source / name).resolve().is_relative_to(study.adapters.resolve()):
            raise InputError(
                f"{source / name} leads out of the study's folder", remedy="put the file itself in place of the link"
            )
    return resolved, source


def _diverged(study: StudyFolder) -> set[Arm]:
    """Return the ranks of a set all of whose trials diverged."""
    with StudyStore.open(study.store) as store:
        outcomes, trials = store.outcomes(), store.read(TrialRecord)
    states = {(trial.arm, getattr(outcomes.get(trial.trial_id), "state", None)) for trial in trials}
    return {arm for arm, _ in states} - {arm for arm, state in states if state != "diverged"}


def _write_merged(study: StudyFolder, resolved: ResolvedStudy, source: Path, to: Path) -> None:
    spec = load_spec(study.spec, {})
    if spec.quantize:
        raise InputError(
            f"the adapter was trained over a base quantised to {spec.quantize}, which it cannot be merged into",
            remedy="export it without --merge",
        )
    base = locate_model(spec.model, trust_remote_code=spec.trust_remote_code)
    model = load_model(base, dtype=getattr(torch, resolved.dtype), device=torch.device("cpu"))
    if hash_weights(model) != resolved.model_hash:
        raise InputError(
            f"the weights of {spec.model} are not those that the adapter was trained on",
            remedy="bring the model back, or export without --merge",
        )
    merge_peft(model, source)
    save_model(model, load_tokenizer(base), to)

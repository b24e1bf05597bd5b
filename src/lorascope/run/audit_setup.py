"""Prepare an audit: everything that can refuse it, before anything expensive starts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from lorascope.data.dataset import Examples, Splits
from lorascope.data.forgetting_text import ForgettingText, read_forgetting_text
from lorascope.data.prepare import prepare, prepare_held_out
from lorascope.data.sample_prompts import PromptTokens, sample_prompts
from lorascope.engine.forward import FrozenModel
from lorascope.engine.verify import prepare_model
from lorascope.errors import InputError
from lorascope.measure.environment import limit_threads, usable_cores
from lorascope.message import Message
from lorascope.modeling.adapters.foreign import check_fits, open_adapter, over_plain_base
from lorascope.modeling.adapters.lora import MultiLoraLinear
from lorascope.modeling.adapters.modules_to_save import select_modules_to_save
from lorascope.modeling.adapters.stored_adapter import StoredAdapter
from lorascope.modeling.base import BaseModel, load_base
from lorascope.modeling.device_dtype import resolve_device
from lorascope.modeling.end_tokens import end_token_ids
from lorascope.modeling.load import ModelSource, check_source, load_model, load_tokenizer, locate_model
from lorascope.modeling.meta_model import empty_model
from lorascope.records import ResolvedStudy
from lorascope.spec.fields.lora import split_expert
from lorascope.spec.fields.rows import RowFields
from lorascope.spec.load import load_spec
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from lorascope.store.folder import StudyFolder

_OF_THE_BASE = ("model", "quantize")
"""Fields of a study that say what its adapters were trained over. A model's own code runs only where the user allows it
now, as a study's folder may come from anywhere."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedAudit:
    """An adapter, its base and rows."""

    spec: StudySpec
    """What is evaluated and how; nothing of it that is about training counts."""
    stored: StoredAdapter
    """An update of the base as it is."""
    splits: Splits
    tokenizer: PreTrainedTokenizerBase
    end_ids: frozenset[int]
    """Tokens that end an answer."""
    text: ForgettingText | None
    prompts: tuple[PromptTokens, ...]
    frozen: FrozenModel
    notes: tuple[Message, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Asked:
    """What is to be evaluated."""

    spec: StudySpec
    resolved: ResolvedStudy | None
    """Of the study whose adapter this is, where its own held-out rows are evaluated."""
    notes: tuple[Message, ...] = ()


def prepare_audit(folder: Path, given: Mapping[str, object], tell: Callable[[str], None]) -> PreparedAudit:
    """Read the adapter and the rows, and load the base.

    Args:
        folder: of the adapter. Where it lies in a study's folder, the study says what is not given.
        given: fields of a study.
        tell: told of each phase.

    Raises:
        InputError: adapter, base or rows cannot be used, or do not belong together.
    """
    limit_threads()
    stored = open_adapter(folder)
    asked = _asked(folder, stored, given)
    spec, resolved = asked.spec, asked.resolved
    device, source = resolve_device(spec.device), _source(spec)
    tell("reading the tokenizer")
    tokenizer = load_tokenizer(source)
    check_source(source, spec.model)
    check_fits(stored, empty_model(source), spec.model)
    tell("reading the rows")
    ends = end_token_ids(source)
    splits = _rows(spec, resolved, tokenizer, ends)
    text = read_forgetting_text(spec, tokenizer)
    rows = (splits.train, Examples.of(splits.eval), Examples.of(text.windows if text else ()))
    tell("loading the model")
    dtype = resolved.dtype if resolved else spec.dtype
    base = load_base(source, rows, name=spec.model, dtype=dtype, device=device)
    _check_same_base(resolved, base)
    stored = over_plain_base(stored, lambda name: MultiLoraLinear(base.model.get_submodule(name)))
    tell("comparing ways to compute the model")
    return PreparedAudit(
        spec=spec,
        stored=stored,
        splits=splits,
        tokenizer=tokenizer,
        end_ids=ends | {tokenizer.eos_token_id},
        text=text,
        prompts=sample_prompts(splits.eval, tokenizer, count=spec.samples, seed=spec.split_seed),
        frozen=_frozen(stored, base, splits, spec, resolved),
        notes=(*asked.notes, *splits.notes, *base.notes),
    )


def plain_adapter(folder: Path, given: Mapping[str, object]) -> StoredAdapter:
    """Read an adapter as an update of its base as it is; the base is loaded only where it takes part in that.

    Raises:
        InputError: the adapter cannot be read, or needs a base that cannot be loaded.
    """
    stored = open_adapter(folder)

    def layer_of(name: str) -> MultiLoraLinear:
        return MultiLoraLinear(base().get_submodule(name))

    loaded: list[torch.nn.Module] = []

    def base() -> torch.nn.Module:
        if not loaded:
            spec = _with_base(folder, stored, given)[0]
            check_fits(stored, empty_model(_source(spec)), spec.model)
            loaded.append(load_model(_source(spec), dtype=torch.float32, device=torch.device("cpu")))
        return loaded[0]

    return over_plain_base(stored, layer_of)


def _source(spec: StudySpec) -> ModelSource:
    return replace(locate_model(spec.model, trust_remote_code=spec.trust_remote_code), quantize=spec.quantize)


def _asked(folder: Path, stored: StoredAdapter, given: Mapping[str, object]) -> _Asked:
    study = _study_of(folder)
    spec, notes = _with_base(folder, stored, given)
    if study is not None:
        own = load_spec(study.spec, {})
        whole = load_spec(study.spec, {"trust_remote_code": False, **given})
        if all(getattr(own, name) == getattr(whole, name) for name in RowFields.model_fields if name != "model"):
            with StudyStore.open(study.store) as store:
                return _Asked(spec=whole, resolved=store.read_one(ResolvedStudy), notes=notes)
    if "dataset" not in given:
        raise InputError(
            "no held-out rows are given", remedy="give rows that the adapter was not trained on, with --dataset"
        )
    return _Asked(spec=spec, resolved=None, notes=notes)


def _study_of(folder: Path) -> StudyFolder | None:
    """Return the study in whose folder an adapter lies."""
    adapters = folder.resolve().parent
    study = StudyFolder(adapters.parent)
    return study if adapters == study.adapters and study.store.is_file() and study.spec.is_file() else None


def _with_base(
    folder: Path, stored: StoredAdapter, given: Mapping[str, object]
) -> tuple[StudySpec, tuple[Message, ...]]:
    """Return the fields that are given, with the base that the adapter names where none is, and what to note of it."""
    study, named = _study_of(folder), str(stored.config.get("base_model_name_or_path") or "")
    own = {} if study is None else load_spec(study.spec, {}).model_dump(include=set(_OF_THE_BASE))
    if not own and named:
        own = {"model": named}
    if "model" not in {**own, **given}:
        raise InputError(f"the adapter in {folder} does not name its base", remedy="name it with --model")
    model, gone = str({**own, **given}["model"]), _is_gone(named)
    if model == named and gone:
        raise InputError(f"the adapter's base {named} is not here", remedy="name the base with --model")
    spec = load_spec(None, {**own, **given})
    if "model" not in given or not named:
        return spec, ()
    if gone:
        return spec, (Message("audit.other_name", named=named, model=model),)
    if _last_name(model) != _last_name(named) and locate_model(model, trust_remote_code=False).path != named:
        raise InputError(
            f"the adapter in {folder} was made for the base {named}, not for {model}",
            remedy="give that base; if this is it under another name, name it so in adapter_config.json",
        )
    return spec, ()


def _is_gone(named: str) -> bool:
    """Return True for a path that is not there."""
    return named.startswith((".", "/", "~")) and not Path(named).expanduser().exists()


def _last_name(model: str) -> str:
    """Return the last part of a hub id or path; of a snapshot in the hub's cache, that of its repository."""
    parts = Path(model).parts
    at = parts.index("snapshots") if "snapshots" in parts else 0
    return (parts[at - 1].rpartition("--")[2] if at else Path(model).name).lower()


def _rows(
    spec: StudySpec, resolved: ResolvedStudy | None, tokenizer: PreTrainedTokenizerBase, ends: frozenset[int]
) -> Splits:
    """Return the rows of the study whose adapter this is, or all that are given."""
    if resolved is None:
        return prepare_held_out(spec, tokenizer, end_ids=ends, processes=usable_cores())
    splits = prepare(spec, tokenizer, end_ids=ends, processes=usable_cores(), before_hash=resolved.data_hash)
    if resolved.data_hash not in (splits.data_hash, splits.halves_hash):
        raise InputError(
            "the rows changed since the adapter's study began",
            remedy="bring them back, or give others with --dataset",
        )
    return splits


def _check_same_base(resolved: ResolvedStudy | None, base: BaseModel) -> None:
    if resolved is not None and resolved.model_hash != base.sha256:
        raise InputError(
            f"the weights of {resolved.model} are not those that the adapter was trained on",
            remedy="bring the model back, or name it with --model",
        )


def _frozen(
    stored: StoredAdapter, base: BaseModel, splits: Splits, spec: StudySpec, resolved: ResolvedStudy | None
) -> FrozenModel:
    names = list(stored.updates())
    frozen, _ = prepare_model(
        base.model,
        tuple(name for name in names if split_expert(name)[1] is None),
        splits.eval,
        packing=resolved.packing if resolved else spec.packing,
        kernels=resolved.kernels if resolved else spec.kernels,
        modules_to_save=select_modules_to_save(base.model, tuple(stored.modules())),
        experts=tuple(name for name in names if split_expert(name)[1] is not None),
    )
    return frozen

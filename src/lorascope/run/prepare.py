"""Everything that can refuse a study, before anything expensive starts."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from lorascope.data.dataset import Example, Splits
from lorascope.data.forgetting_text import ForgettingText, read_forgetting_text
from lorascope.data.prepare import prepare
from lorascope.data.row_order import total_steps
from lorascope.engine.forward import FrozenModel
from lorascope.engine.verify import Reasons, prepare_model
from lorascope.errors import InputError
from lorascope.measure.environment import limit_threads
from lorascope.message import Message
from lorascope.modeling.device_dtype import choose_dtype, resolve_device
from lorascope.modeling.load import ModelSource, hash_weights, load_model, load_tokenizer, locate_model
from lorascope.modeling.targets import check_ranks
from lorascope.records import ResolvedStudy
from lorascope.run.limits import check_adapter_sizes
from lorascope.run.trackers import Tracker
from lorascope.spec.schema import StudySpec
from lorascope.text.say import say


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedStudy:
    """A study that can start."""

    spec: StudySpec
    resolved: ResolvedStudy
    splits: Splits
    forgetting_text: ForgettingText | None
    frozen: FrozenModel
    source: ModelSource
    device: torch.device


def prepare_study(spec: StudySpec, before: ResolvedStudy | None, tracker: Tracker) -> PreparedStudy:
    """Load rows and model and make every automatic choice.

    Args:
        spec: what was asked.
        before: the facts of the run that is continued: its precision, packing and kernels are kept, its rows and
            weights must still be the same. None for a new study.
        tracker: told of each phase.

    Raises:
        InputError: anything about model, rows, targets or ranks that cannot be used.
    """
    limit_threads()
    device = resolve_device(spec.device)
    tracker.phase("reading the tokenizer")
    source = locate_model(spec.model, trust_remote_code=spec.trust_remote_code)
    tokenizer = load_tokenizer(source)
    tracker.phase("reading the rows")
    splits = prepare(spec, tokenizer)
    forgetting_text = read_forgetting_text(spec, tokenizer)
    tracker.phase("loading the model")
    dtype, dtype_reason = choose_dtype(before.dtype if before else spec.dtype, device)
    model = load_model(source, dtype=dtype, device=device)
    _check_rows_fit(model, (*splits.train, *splits.eval, *(forgetting_text.windows if forgetting_text else ())), spec)
    model_hash = hash_weights(model)
    tracker.phase("comparing ways to compute the model")
    frozen, found = prepare_model(
        model,
        spec.target_modules,
        splits.train,
        packing=before.packing if before else spec.packing,
        kernels=before.kernels if before else spec.kernels,
        timed=before is None and spec.share_prefixes != "always",  # which needs the kernels
        share=spec.share_prefixes == "exact" and spec.lora_dropout == 0,
    )
    reasons = Reasons(packing=before.packing_reason, kernels=before.kernels_reason) if before else found
    slower = _slower_notes(frozen, reasons, spec, device)
    for note in slower:
        tracker.note(say(note))
    notes = check_ranks(frozen.layers, spec.ranks)
    check_adapter_sizes(frozen.layers, spec, dtype)
    resolved = ResolvedStudy(
        model=spec.model,
        dataset=spec.dataset,
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        dtype_reason=before.dtype_reason if before else dtype_reason,
        packing=frozen.packing,
        packing_reason=reasons.packing,
        kernels=frozen.accelerated,
        kernels_reason=reasons.kernels,
        train_examples=len(splits.train),
        eval_examples=len(splits.eval),
        train_tokens=sum(example.n_tokens for example in splits.train),
        train_target_tokens=sum(example.n_targets for example in splits.train),
        eval_target_tokens=sum(example.n_targets for example in splits.eval),
        total_steps=total_steps(spec, len(splits.train)),
        base_parameters=sum(parameter.numel() for parameter in model.parameters()),
        target_modules=tuple(frozen.layers),
        data_hash=splits.data_hash,
        model_hash=model_hash,
        eval_tokens=sum(example.n_tokens for example in splits.eval),
        data_notes=(*splits.notes, *notes, *slower, *_dropout_note(model.config)),
    )
    if before is not None:
        _check_same(before, resolved, found)
    return PreparedStudy(
        spec=spec,
        resolved=resolved,
        splits=splits,
        forgetting_text=forgetting_text,
        frozen=frozen,
        source=source,
        device=device,
    )


def _check_same(before: ResolvedStudy, now: ResolvedStudy, found: Reasons) -> None:
    for what, old, new in (("rows", before.data_hash, now.data_hash), ("model", before.model_hash, now.model_hash)):
        if old != new:
            raise InputError(
                f"the {what} changed since this study began (hash {old[:12]}, now {new[:12]})",
                remedy=f"bring the {what} back, or start a new study with --out",
            )
    if before.device != now.device:
        raise InputError(
            f"this study began on {before.device}, and this run would use {now.device}",
            remedy=f"continue it with --device {before.device}, or start a new study with --out",
        )
    if before.packing != now.packing:
        raise InputError(
            f"this machine cannot pack the rows as the study's first run did ({say(found.packing)})",
            remedy="continue it where it began, or start a new study with --out",
        )
    if before.kernels != now.kernels:
        raise InputError(
            f"this study began with compiled kernels, and this machine has none ({say(found.kernels)})",
            remedy="continue it where it began, or start a new study with --out",
        )


def _check_rows_fit(model: PreTrainedModel, rows: Sequence[Example], spec: StudySpec) -> None:
    """Refuse rows longer than the model's positions, and tokens that it has no embedding for."""
    limit = getattr(model.config, "max_position_embeddings", None)
    longest = max(row.n_tokens for row in rows)
    if isinstance(limit, int) and longest > limit:
        raise InputError(
            f"rows of up to {longest} tokens, but the model {spec.model} has {limit} positions",
            remedy=f"set max_length to at most {limit}",
        )
    largest = max(int(row.input_ids.max()) for row in rows)
    known = len(model.get_input_embeddings().get_parameter("weight"))
    if largest >= known:
        raise InputError(
            f"the tokenizer of {spec.model} makes token {largest}, but the model has embeddings of {known} tokens",
            remedy="give the model with its own tokenizer, or resize its embeddings first",
        )


def _slower_notes(frozen: FrozenModel, reasons: Reasons, spec: StudySpec, device: torch.device) -> tuple[Message, ...]:
    """Say what was asked for, or is expected, and cannot be had here."""
    notes = []
    slower = spec.kernels and not frozen.accelerated and reasons.kernels.code != "kernels.slower"
    if slower and device.type == "cpu":
        notes.append(Message("note.no_kernels", reason=reasons.kernels))
    if spec.share_prefixes == "always" and not frozen.can_share:
        why = reasons.kernels if frozen.packing else reasons.packing
        asked = next((f"{name}: false" for name in ("packing", "kernels") if not getattr(spec, name)), why)
        notes.append(Message("note.no_sharing", reason=asked))
    return tuple(notes)


def _dropout_note(config: object) -> tuple[Message, ...]:
    names = ("dropout", "attention_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop", "hidden_dropout")
    rates = {name: getattr(config, name, None) for name in names}
    used = ", ".join(f"{name} {rate}" for name, rate in rates.items() if isinstance(rate, float) and rate > 0)
    return (Message("note.no_base_dropout", used=used),) if used else ()

"""Prepare the user's model for a study: swap the layers in, and choose how it is computed.

Packed rows and a faster backend, with prefixes that rows share, are compared with the untouched model's logits on the
user's own rows: first both together, then each where that does not fit. A backend that is right is then timed against
Torch.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from lorascope.data.dataset import Example
from lorascope.engine.backend_speed import compare_speed, kept_speed
from lorascope.engine.forward import FrozenModel, MicroBatchRow
from lorascope.engine.microbatch import split_rows, with_prefix_groups
from lorascope.engine.oom import is_out_of_memory
from lorascope.engine.reference import TOLERANCE, Reference, relative_difference, take_reference
from lorascope.errors import MODEL_ERRORS, InputError, is_own_fault
from lorascope.message import Message
from lorascope.modeling.adapters.initialisation import check_initialisation, saved_rank_note
from lorascope.modeling.adapters.lora import MultiLoraLinear
from lorascope.modeling.adapters.modules_to_save import (
    parameters_to_save,
    saved_module_notes,
    select_modules_to_save,
    swap_in_modules_to_save,
)
from lorascope.modeling.adapters.peft_check import unloadable_layers
from lorascope.modeling.backends.protocol import Backend, unpatch
from lorascope.modeling.backends.registry import load_fast_backend
from lorascope.modeling.backends.torch.backend import TORCH
from lorascope.modeling.packing.packed_layout import BASE_ONLY
from lorascope.modeling.packing.positions import position_switch
from lorascope.modeling.target_notes import target_notes
from lorascope.modeling.target_selection import join_sets, layers_of_ranks, select_sets, share_ranks
from lorascope.modeling.targets import adaptable, check_adapter_sizes, check_ranks, find_targets, swap_in
from lorascope.records import ResolvedStudy
from lorascope.search.target_sets import studies_by_set
from lorascope.spec.fields.lora import split_expert
from lorascope.spec.schema import StudySpec

_LARGEST_ROUNDING = 0.1
"""However much the padded path itself is rounded in 16 bits, a larger difference is not called rounding."""
_ROUNDED = {torch.bfloat16, torch.float16}


class Reasons(NamedTuple):
    """Why a model's rows are packed or padded, and why compiled kernels are used or not."""

    packing: Message
    kernels: Message


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckedModel:
    """A study's model with its layers swapped in, computed in a way that was checked."""

    frozen: FrozenModel
    target_sets: Mapping[str, tuple[str, ...]]
    """Full names of the layers of each set, by the set's name."""
    found: Reasons
    """Of this process."""
    reasons: Reasons
    """Of the study's first run."""
    slower: tuple[Message, ...]
    """What was asked for, or is expected, and is not available here."""
    notes: tuple[Message, ...]
    """About layers and ranks."""


def check_model(
    spec: StudySpec, model: PreTrainedModel, examples: Sequence[Example], before: ResolvedStudy | None
) -> CheckedModel:
    """Prepare a study's model, and check its ranks and the limit on adapters against the layers.

    Args:
        spec: the study.
        model: the frozen base.
        examples: rows to compare on.
        before: the run that is continued, whose packing and kernels are kept; None for a new study.

    Raises:
        InputError: targets, ranks, limits or layouts of rows that the model does not allow.
    """
    reference = take_reference(model, examples)
    passed = [name for name in adaptable(model) if name in reference.reach.wholly]
    reach = replace(reference.reach, unloadable=unloadable_layers(model, passed))
    sets = select_sets(model, spec, reach)
    joined = join_sets(model, sets)
    experts = tuple(name for name in joined if split_expert(name)[1] is not None)
    lost = unloadable_layers(model, experts)
    if lost:
        raise InputError(
            f"target_parameters matches {split_expert(min(lost))[0]}, and PEFT does not load adapters of it",
            remedy="leave target_parameters out, or name the other parameters of the experts as well",
        )
    notes = [note for name, one in studies_by_set(spec).items() for note in target_notes(model, one, sets[name], reach)]
    whole = select_modules_to_save(model, spec.modules_to_save)
    notes += saved_module_notes(model, whole)
    frozen, found = prepare_model(
        model,
        joined[: len(joined) - len(experts)],
        examples,
        modules_to_save=whole,
        experts=experts,
        reference=reference,
        packing=before.packing if before else spec.packing,
        kernels=before.kernels if before else spec.kernels,
        timed=before is None and spec.share_prefixes != "always",  # which needs the kernels
        share=spec.share_prefixes == "exact" and spec.lora_dropout == 0,
    )
    reasons = Reasons(packing=before.packing_reason, kernels=before.kernels_reason) if before else found
    slower = _slower_notes(frozen, reasons, spec)
    notes += share_ranks(model, frozen.layers, spec)
    layers = [{name: frozen.layers[name] for name in names} for names in sets.values()]
    for own in layers:
        notes += check_ranks(layers_of_ranks(own, spec), spec.ranks)
    check_initialisation(frozen.layers, spec)
    notes += saved_rank_note(spec)
    check_adapter_sizes(min(layers, key=_features), spec, model.dtype, whole=parameters_to_save(model, whole))
    return CheckedModel(
        frozen=frozen, target_sets=sets, found=found, reasons=reasons, slower=slower, notes=tuple(dict.fromkeys(notes))
    )


def _features(layers: Mapping[str, MultiLoraLinear]) -> int:
    """Return what the parameters of an adapter are proportional to."""
    return sum(sum(layer.features) for layer in layers.values())


def _slower_notes(frozen: FrozenModel, reasons: Reasons, spec: StudySpec) -> tuple[Message, ...]:
    notes = []
    slower = spec.kernels and not frozen.accelerated and reasons.kernels.code != "kernels.slower"
    if slower and frozen.device.type == "cpu":
        notes.append(Message("note.no_kernels", reason=reasons.kernels))
    if frozen.alone:
        notes.append(Message("note.rows_alone"))
    if spec.share_prefixes == "always" and not frozen.can_share:
        why = reasons.kernels if frozen.packing else reasons.packing
        asked = next((f"{name}: false" for name in ("packing", "kernels") if not getattr(spec, name)), why)
        notes.append(Message("note.no_sharing", reason=asked))
    return tuple(notes)


def prepare_model(
    model: PreTrainedModel,
    target_modules: tuple[str, ...] | str | None,
    examples: Sequence[Example],
    *,
    packing: bool,
    kernels: bool,
    modules_to_save: tuple[str, ...] = (),
    timed: bool = False,
    share: bool = False,
    reference: Reference | None = None,
    experts: tuple[str, ...] = (),
) -> tuple[FrozenModel, Reasons]:
    """Put multi-rank layers into a model; choose how it is computed by its logits and its speed on real rows.

    Args:
        model: the frozen base.
        target_modules: which layers get adapters.
        examples: rows to compare on.
        packing: whether rows may be packed without padding.
        kernels: whether a faster backend than Torch may be used.
        modules_to_save: full names of modules that trials train whole.
        timed: whether that backend must be faster here; if not, it must be right only.
        share: whether rows in training share prefixes where the backend can.
        reference: what the model makes of these rows, if it is known.
        experts: names of experts that get adapters too; no layer need then.

    Raises:
        InputError: targets that match nothing, layers that see only part of the tokens, or a model whose logits no
            layout of rows keeps.
    """
    reference = reference or take_reference(model, examples)
    targets = find_targets(model, target_modules, reach=reference.reach) if target_modules or not experts else ()
    plain = FrozenModel(
        model=model,
        layers=swap_in(model, (*targets, *experts)),
        modules_to_save=swap_in_modules_to_save(model, modules_to_save),
        packing=False,
        chunked_head=reference.plain_head,
        backend=TORCH,
        own_attention=model.config._attn_implementation,
        switch=position_switch(model.config),
    )
    backend, reason = load_fast_backend(plain.device) if kernels else (None, Message("asked"))
    check = _Check(examples=examples, reference=reference, rounding=0.0, timed=timed, share=share)
    if packing and backend is not None:  # nearly every model takes both, and then no slower way has to be tried
        fast, found = _accelerate(replace(plain, packing=True), backend, reason, check)
        if fast is not None:
            return fast, Reasons(packing=Message("packing.agrees"), kernels=found)
        if found.code == "kernels.slower":
            backend, reason = None, found
    frozen, check = _pad(plain, check)
    frozen, packing_reason = _pack(frozen, check) if packing else (frozen, Message("asked"))
    if backend is not None:
        fast, reason = _accelerate(frozen, backend, reason, check)
        frozen = fast or frozen
    return frozen, Reasons(packing=packing_reason, kernels=reason)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Check:
    """Judges other ways of computing the model."""

    examples: Sequence[Example]
    reference: Reference
    rounding: float
    """How far the padded path is from the reference; 0 where only the tolerance counts."""
    timed: bool
    share: bool

    def difference(self, frozen: FrozenModel) -> float:
        """Return the largest difference of any row's logits."""
        rows = [MicroBatchRow(example=row.example, adapter=BASE_ONLY) for row in self.reference.rows]
        if frozen.can_share:  # the longest row stays whole: its mask is checked
            rows = [*with_prefix_groups(rows[:-1]), rows[-1]]
        places = {id(row): place for place, row in enumerate(rows)}
        found: dict[int, float] = {}
        for microbatch in split_rows(frozen, [rows], tokens_per_pass=sys.maxsize, share=False):
            own = [places[id(row)] for row in microbatch]
            logits = frozen.logits(microbatch, [self.reference.rows[place].at for place in own])
            for place, one in zip(own, logits, strict=True):
                found[place] = relative_difference(one, self.reference.logits[place])
        return max(found.values())

    def agrees(self, difference: float, dtype: torch.dtype) -> bool:
        return difference <= max(TOLERANCE[dtype], min(2 * self.rounding, _LARGEST_ROUNDING))


def _pad(frozen: FrozenModel, check: _Check) -> tuple[FrozenModel, _Check]:
    """Compute padded rows with Torch, one at a time where padding changes logits; return how far they are off."""
    dtype = frozen.model.dtype
    try:
        rounding = check.difference(frozen)
    except MODEL_ERRORS as error:
        _first_line(error)
        rounding = math.inf
    if rounding > (_LARGEST_ROUNDING if dtype in _ROUNDED else TOLERANCE[dtype]):
        frozen = replace(frozen, alone=True)
        rounding = check.difference(frozen)
    if rounding > _LARGEST_ROUNDING:
        raise InputError(
            f"this model gives other logits the second time a row goes through it (they differ by {rounding:.0%})",
            remedy="give another model",
        )
    return frozen, replace(check, rounding=rounding)


def _pack(frozen: FrozenModel, check: _Check) -> tuple[FrozenModel, Message]:
    packed = replace(frozen, packing=True, alone=False)
    try:
        difference = check.difference(packed)
    except MODEL_ERRORS as error:
        return frozen, Message("packing.refused", error=_first_line(error))
    if check.agrees(difference, frozen.model.dtype):
        return packed, Message("packing.agrees_within", difference=difference)
    return frozen, Message("packing.differs", difference=difference)


def _accelerate(
    frozen: FrozenModel, backend: Backend, how: Message, check: _Check
) -> tuple[FrozenModel | None, Message]:
    """Let a backend compute the model, patched to the first level at which its logits stay; None if it should not."""
    fast, reason = replace(frozen, backend=backend), how
    kept = kept_speed(fast, share=check.share) if check.timed else None
    if kept is not None and kept.torch_is_faster:
        return None, Message("kernels.slower", share=kept.ratio)
    for level in backend.patch_levels(packed=frozen.packing):
        patched = backend.patch(frozen.model, level)
        try:
            difference = check.difference(fast)
        except MODEL_ERRORS as error:
            reason = Message("kernels.refused", error=_first_line(error))
        else:
            if check.agrees(difference, frozen.model.dtype):
                right = Message("kernels.agree", how=how, modules=len(patched), difference=difference)
                return _if_faster(fast, patched, right, check)
            reason = Message("kernels.differ", difference=difference)
        unpatch(patched)
    return None, reason


def _if_faster(
    fast: FrozenModel, patched: Sequence[nn.Module], right: Message, check: _Check
) -> tuple[FrozenModel | None, Message]:
    """Keep a backend whose logits are right, unless Torch is clearly faster here."""
    speed = compare_speed(fast, patched, check.examples, share=check.share) if check.timed else None
    if speed is None:
        return fast, right
    if speed.torch_is_faster:
        unpatch(patched)
        return None, Message("kernels.slower", share=speed.ratio)
    return fast, Message("kernels.faster", right=right, share=speed.ratio)


def _first_line(error: Exception) -> str:
    """Return the first line of a model's error. Raises the error if this package is at fault."""
    if is_own_fault(error) and not is_out_of_memory(error):
        raise error
    return str(error).split("\n", maxsplit=1)[0][:120]

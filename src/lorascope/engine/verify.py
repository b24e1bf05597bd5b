"""Prepare the user's model for a study: swap the layers in, and choose how it is computed.

Packed rows and a faster backend, with prefixes that rows share, are compared with the untouched model's logits on the
user's own rows: first both together, then each where that does not fit. A backend that is right is then timed against
Torch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from lorascope.data.dataset import Example
from lorascope.engine.backend_speed import compare_speed, kept_speed
from lorascope.engine.forward import FrozenModel, MicroBatchRow
from lorascope.engine.microbatch import with_prefix_groups
from lorascope.engine.oom import is_out_of_memory
from lorascope.errors import MODEL_ERRORS, InputError, is_own_fault
from lorascope.message import Message
from lorascope.modeling.adapters.initialisation import check_initialisation
from lorascope.modeling.backends.protocol import Backend, unpatch
from lorascope.modeling.backends.registry import load_fast_backend
from lorascope.modeling.backends.torch.backend import TORCH
from lorascope.modeling.packing.packed_layout import BASE_ONLY
from lorascope.modeling.target_selection import layers_of_ranks, select_targets
from lorascope.modeling.targets import check_adapter_sizes, check_ranks, find_targets, swap_in
from lorascope.records import ResolvedStudy
from lorascope.spec.schema import StudySpec

_CHECKED_ROWS = 4
_CHECKED_TOKENS = 128
"""Rows are compared up to here: the logits of all their tokens exist at once."""
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}
"""Largest root mean square difference of logits, as a share of their own, that rounding explains. A wrong position,
mask or missing soft cap moves logits by tens of per cent."""
_LARGEST_ROUNDING = 0.1
"""However much the padded path itself is rounded, a larger difference is not called rounding."""


class Reasons(NamedTuple):
    """Why a model's rows are packed or padded, and why compiled kernels are used or not."""

    packing: Message
    kernels: Message


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckedModel:
    """A study's model with its layers swapped in, computed in a way that was checked."""

    frozen: FrozenModel
    found: Reasons
    """Of this process."""
    reasons: Reasons
    """Of the study's first run."""
    slower: tuple[Message, ...]
    """What was asked for, or is expected, and is not available here."""
    notes: tuple[Message, ...]
    """About ranks."""


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
    frozen, found = prepare_model(
        model,
        select_targets(model, spec),
        examples,
        packing=before.packing if before else spec.packing,
        kernels=before.kernels if before else spec.kernels,
        timed=before is None and spec.share_prefixes != "always",  # which needs the kernels
        share=spec.share_prefixes == "exact" and spec.lora_dropout == 0,
    )
    reasons = Reasons(packing=before.packing_reason, kernels=before.kernels_reason) if before else found
    slower = _slower_notes(frozen, reasons, spec)
    notes = check_ranks(layers_of_ranks(frozen.layers, spec), spec.ranks)
    check_initialisation(frozen.layers, spec)
    check_adapter_sizes(frozen.layers, spec, model.dtype)
    return CheckedModel(frozen=frozen, found=found, reasons=reasons, slower=slower, notes=tuple(notes))


def _slower_notes(frozen: FrozenModel, reasons: Reasons, spec: StudySpec) -> tuple[Message, ...]:
    notes = []
    slower = spec.kernels and not frozen.accelerated and reasons.kernels.code != "kernels.slower"
    if slower and frozen.device.type == "cpu":
        notes.append(Message("note.no_kernels", reason=reasons.kernels))
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
    timed: bool = False,
    share: bool = False,
) -> tuple[FrozenModel, Reasons]:
    """Put multi-rank layers into a model; choose how it is computed by its logits and its speed on real rows.

    Args:
        model: the frozen base.
        target_modules: which layers get adapters.
        examples: rows to compare on.
        packing: whether rows may be packed without padding.
        kernels: whether a faster backend than Torch may be used.
        timed: whether that backend must be faster here; if not, it must be right only.
        share: whether rows in training share prefixes where the backend can.

    Raises:
        InputError: targets that match nothing, layers that see only part of the tokens, or a model whose logits no
            layout of rows keeps.
    """
    reference = _reference_logits(model, examples)
    plain = FrozenModel(
        model=model,
        layers=swap_in(model, find_targets(model, target_modules)),
        packing=False,
        chunked_head=True,
        backend=TORCH,
        own_attention=model.config._attn_implementation,
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
    reference: Sequence[torch.Tensor]
    rounding: float
    """How far the padded path is from the reference; 0 where only the tolerance counts."""
    timed: bool
    share: bool

    def difference(self, frozen: FrozenModel) -> float:
        return _difference(frozen, self.examples, self.reference)

    def agrees(self, difference: float, dtype: torch.dtype) -> bool:
        return difference <= max(_TOLERANCE[dtype], min(2 * self.rounding, _LARGEST_ROUNDING))


def _pad(frozen: FrozenModel, check: _Check) -> tuple[FrozenModel, _Check]:
    """Compute padded rows with Torch, the head in chunks if the logits are right then; return how far they are off."""
    rounding = check.difference(frozen)
    if rounding > _TOLERANCE[frozen.model.dtype]:
        frozen = replace(frozen, chunked_head=False)
        rounding = check.difference(frozen)
    if rounding > _LARGEST_ROUNDING:
        raise InputError(
            f"this model gives other logits for padded rows than for single ones (they differ by {rounding:.0%})",
            remedy="try --dtype float32, or another model",
        )
    return frozen, replace(check, rounding=rounding)


def _pack(frozen: FrozenModel, check: _Check) -> tuple[FrozenModel, Message]:
    packed = replace(frozen, packing=True)
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


def _checked(examples: Sequence[Example]) -> list[Example]:
    """Choose rows of different length, from the shortest to the longest of the first hundred."""
    by_length = sorted(examples[:100], key=lambda example: example.n_tokens)
    last = len(by_length) - 1
    chosen = sorted({round(i * last / (_CHECKED_ROWS - 1)) for i in range(_CHECKED_ROWS)})
    return [
        Example(input_ids=row.input_ids[:_CHECKED_TOKENS], target_mask=row.target_mask[:_CHECKED_TOKENS])
        for row in (by_length[i] for i in chosen)
    ]


def _reference_logits(model: PreTrainedModel, examples: Sequence[Example]) -> list[torch.Tensor]:
    """Return the untouched model's own logits of the checked rows, one row at a time."""
    with torch.no_grad():
        return [model(torch.from_numpy(row.input_ids)[None].to(model.device)).logits[0] for row in _checked(examples)]


def _difference(frozen: FrozenModel, examples: Sequence[Example], reference: Sequence[torch.Tensor]) -> float:
    """Return the largest relative root mean square difference of any row's logits, each token's mean taken out.

    A softmax does not see that mean, which is often the largest part of the logits.
    """
    rows = [MicroBatchRow(example=example, adapter=BASE_ONLY) for example in _checked(examples)]
    if frozen.can_share:
        rows = with_prefix_groups(rows)
    wide = torch.promote_types(frozen.model.dtype, torch.float32)
    shares = [
        (_centred(logits - expected, wide).norm() / _centred(expected, wide).norm()).item()
        for logits, expected in zip(frozen.logits(rows), reference, strict=True)
    ]
    # not a number is no agreement
    return max(math.inf if math.isnan(share) else share for share in shares)


def _centred(logits: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    wide = logits.to(dtype)
    return wide - wide.mean(dim=-1, keepdim=True)

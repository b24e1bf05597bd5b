"""Prepare the user's model for a study: swap the layers in, and check that every way of computing it is the model.

Packed rows and compiled kernels, with prefixes that rows share, are compared with the untouched model's logits on the
user's own rows: first both together, then each where that does not fit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from lorascope.data.dataset import Example
from lorascope.engine.forward import FrozenModel, MicroBatchRow
from lorascope.engine.microbatch import with_prefix_groups
from lorascope.errors import InputError
from lorascope.message import Message
from lorascope.modeling.backends.cpu.bindings import Kernels
from lorascope.modeling.backends.cpu.build import load_kernels
from lorascope.modeling.backends.cpu.patch_modules import Depth, fuse, unfuse
from lorascope.modeling.packing.packed_layout import BASE_ONLY
from lorascope.modeling.targets import find_targets, swap_in

_CHECKED_ROWS = 4
_CHECKED_TOKENS = 128
"""Rows are compared up to here: the logits of all their tokens exist at once."""
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}
"""Largest root mean square difference of logits, as a share of their own, that rounding explains. A wrong position,
mask or missing soft cap moves logits by tens of per cent."""
_LARGEST_ROUNDING = 0.1
"""However much the padded path itself is rounded, a larger difference is not called rounding."""
_REFUSALS = (TypeError, ValueError, KeyError, AttributeError, RuntimeError)
"""What a model raises that cannot be computed another way."""


class Reasons(NamedTuple):
    """Why a model's rows are packed or padded, and why compiled kernels are used or not."""

    packing: Message
    kernels: Message


def prepare_model(
    model: PreTrainedModel,
    target_modules: tuple[str, ...] | str | None,
    examples: Sequence[Example],
    *,
    packing: bool,
    kernels: bool,
) -> tuple[FrozenModel, Reasons]:
    """Put multi-rank layers into a model; decide how it is computed by comparing logits on real rows.

    Args:
        model: the frozen base.
        target_modules: which layers get adapters.
        examples: rows to compare on.
        packing: whether rows may be packed without padding.
        kernels: whether compiled kernels may be used.

    Raises:
        InputError: targets that match nothing, layers that see only part of the tokens, or a model that no way of
            laying rows out leaves its own logits.
    """
    reference = _reference_logits(model, examples)
    layers = swap_in(model, find_targets(model, target_modules))
    frozen = FrozenModel(
        model=model,
        layers=layers,
        packing=False,
        chunked_head=True,
        kernels=None,
        own_attention=model.config._attn_implementation,
    )
    check = _Check(examples=examples, reference=reference, rounding=0.0)
    if packing and kernels:  # nearly every model takes both, and then no slower way has to be tried
        fused, reason = _fuse(replace(frozen, packing=True), check, ("layers", "attention"))
        if fused.kernels is not None:
            return fused, Reasons(packing=Message("packing.agrees"), kernels=reason)
    check = replace(check, rounding=_difference(frozen, examples, reference))
    if check.rounding > _TOLERANCE[model.dtype]:
        frozen = replace(frozen, chunked_head=False)
        check = replace(check, rounding=_difference(frozen, examples, reference))
    if check.rounding > _LARGEST_ROUNDING:
        raise InputError(
            f"this model gives other logits for padded rows than for single ones (they differ by {check.rounding:.0%})",
            remedy="try --dtype float32, or another model",
        )
    frozen, packing_reason = _pack(frozen, check) if packing else (frozen, Message("asked"))
    # padded rows have attention of their own
    depths: tuple[Depth, ...] = ("layers", "attention", "modules") if frozen.packing else ("modules",)
    frozen, kernels_reason = _fuse(frozen, check, depths) if kernels else (frozen, Message("asked"))
    return frozen, Reasons(packing=packing_reason, kernels=kernels_reason)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Check:
    """What every other way of computing the model is held against."""

    examples: Sequence[Example]
    reference: Sequence[torch.Tensor]
    rounding: float
    """How far the padded path is from the reference; 0 where only the tolerance counts."""

    def difference(self, frozen: FrozenModel) -> float:
        return _difference(frozen, self.examples, self.reference)

    def agrees(self, difference: float, dtype: torch.dtype) -> bool:
        return difference <= max(_TOLERANCE[dtype], min(2 * self.rounding, _LARGEST_ROUNDING))


def _pack(frozen: FrozenModel, check: _Check) -> tuple[FrozenModel, Message]:
    packed = replace(frozen, packing=True)
    try:
        difference = check.difference(packed)
    except _REFUSALS as error:
        return frozen, Message("packing.refused", error=_first_line(error))
    if check.agrees(difference, frozen.model.dtype):
        return packed, Message("packing.agrees_within", difference=difference)
    return frozen, Message("packing.differs", difference=difference)


def _fuse(frozen: FrozenModel, check: _Check, depths: Sequence[Depth]) -> tuple[FrozenModel, Message]:
    """Let the kernels compute the model, to the first of the depths at which its logits stay."""
    if frozen.device.type != "cpu":
        return frozen, Message("kernels.cpu_only", device=str(frozen.device))
    library, how = load_kernels()
    if library is None:
        return frozen, how
    kernels = Kernels(library)
    fused, reason = replace(frozen, kernels=kernels), how
    for depth in depths:
        replaced = fuse(frozen.model, kernels, depth=depth)
        try:
            difference = check.difference(fused)
        except _REFUSALS as error:
            reason = Message("kernels.refused", error=_first_line(error))
        else:
            if check.agrees(difference, frozen.model.dtype):
                return fused, Message("kernels.agree", how=how, modules=len(replaced), difference=difference)
            reason = Message("kernels.differ", difference=difference)
        unfuse(replaced)
    return frozen, reason


def _first_line(error: Exception) -> str:
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

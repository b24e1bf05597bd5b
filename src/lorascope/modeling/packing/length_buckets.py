"""Length buckets: rows of similar length, padded together for attention only."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

LONG_ROW = 512
"""A longer row goes alone through Torch's fused attention, whose memory is linear in the length."""
_GROUP_RATIO = 0.75
"""A row joins a group while it is at least this share of the group's longest row."""
_LENGTH_MULTIPLE = 16
"""A group's padded length is rounded up to a multiple of this many tokens, so that few shapes occur."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AttentionGroup:
    """Rows that are computed together."""

    rows: int
    padded_length: int
    """L, slots of a row in the group: the longest row, rounded up so that few shapes occur."""
    slots: torch.Tensor
    """int64 [n * L]: the micro-batch's slot of each place of the padded group; padding reads the row's first slot.

    A mask and zero gradients keep padding out of the result, but NaN times zero is NaN: a row that read another trial's
    slot would diverge with it."""
    places: torch.Tensor
    """int64 [real tokens of the group]: the place in the group of each real token."""
    tokens: torch.Tensor
    """int64 [real tokens of the group]: the slot of each real token; ``slots[places] == tokens``."""


def group_rows(lengths: Sequence[int], starts: Sequence[int], device: torch.device) -> tuple[AttentionGroup, ...]:
    """Put rows of similar length together, longest first."""
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    groups: list[list[int]] = []
    for row in order:
        head = lengths[groups[-1][0]] if groups else 0
        if groups and head <= LONG_ROW and lengths[row] >= _GROUP_RATIO * head:
            groups[-1].append(row)
        else:
            groups.append([row])
    return tuple(_group(rows, lengths, starts, device) for rows in groups)


def _group(rows: Sequence[int], lengths: Sequence[int], starts: Sequence[int], device: torch.device) -> AttentionGroup:
    padded_length = lengths[rows[0]]
    if padded_length <= LONG_ROW:
        padded_length += -padded_length % _LENGTH_MULTIPLE
    slots = torch.tensor([starts[row] for row in rows]).repeat_interleave(padded_length)
    places, tokens = [], []
    for i, row in enumerate(rows):
        own = torch.arange(lengths[row])
        slots[i * padded_length : i * padded_length + lengths[row]] = own + starts[row]
        places.append(own + i * padded_length)
        tokens.append(own + starts[row])
    return AttentionGroup(
        rows=len(rows),
        padded_length=padded_length,
        slots=slots.to(device),
        places=torch.cat(places).to(device),
        tokens=torch.cat(tokens).to(device),
    )

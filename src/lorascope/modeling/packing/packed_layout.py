"""Layout of a micro-batch: which tokens belong to which row and which adapter.

A micro-batch is what goes through the model at once. It is made of spans: a row, a prefix that several rows share and
that is computed once, or the rest of a row behind such a prefix. Packed, spans lie end to end in one sequence; padded,
each is filled up to the longest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch.nn import functional as F

from lorascope.modeling.packing.length_buckets import AttentionGroup, group_rows

BASE_ONLY = -1
"""Adapter index of rows that no adapter touches."""
SLOT_MULTIPLE = 32
"""The packed spans of an adapter are filled up to a multiple of this many slots together."""


@dataclass(frozen=True, kw_only=True)
class MicroBatchLayout:
    """Spans of one micro-batch in order; those of one adapter are neighbours.

    Raises:
        AssertionError: spans of one adapter are scattered, or a parent is not a prefix before its children.
    """

    lengths: tuple[int, ...]
    """Real tokens of each span."""
    adapters: tuple[int, ...]
    """Adapter index of each span, or ``BASE_ONLY``."""
    parents: tuple[int, ...] = ()
    """Index of the span that holds the prefix of each span, or -1; empty: -1 for all."""
    device: torch.device
    """Where index tensors live."""
    padded: bool = False

    def __post_init__(self) -> None:
        if not self.parents:
            object.__setattr__(self, "parents", (-1,) * len(self.lengths))
        assert len(self.lengths) == len(self.adapters) == len(self.parents) > 0
        changes = sum(a != b for a, b in zip(self.adapters, self.adapters[1:], strict=False))
        assert changes == len(set(self.adapters)) - 1, "spans of one adapter must be neighbours"
        for span, parent in enumerate(self.parents):
            assert parent < span, "a prefix stands before the rows that share it"
            assert parent < 0 or self.parents[parent] < 0, "a prefix has no prefix"
            assert parent < 0 or self.adapters[parent] == self.adapters[span], "a prefix belongs to one adapter"
            assert parent < 0 or not self.padded, "padded rows share nothing"

    @cached_property
    def runs(self) -> tuple[tuple[int, int, int], ...]:
        """``(adapter, first span, span after the last)`` of neighbours with one adapter, or with none."""
        found, first = [], 0
        for span in range(1, len(self.adapters) + 1):
            if span == len(self.adapters) or self.adapters[span] != self.adapters[first]:
                found.append((self.adapters[first], first, span))
                first = span
        return tuple(found)

    @cached_property
    def segments(self) -> tuple[tuple[int, int, int], ...]:
        """``(adapter, first span, span after the last)`` of each adapter."""
        return tuple(run for run in self.runs if run[0] != BASE_ONLY)

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Slots of each span.

        Padded, all are as wide as the longest. Packed, the last of each adapter is filled up so that its spans together
        are a multiple of 32 slots: the matrix library compiles (and keeps) code for every shape it meets.
        """
        if self.padded:
            return (max(self.lengths),) * len(self.lengths)
        widths = list(self.lengths)
        for _, first, stop in self.runs:
            widths[stop - 1] += -sum(self.lengths[first:stop]) % SLOT_MULTIPLE
        return tuple(widths)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First slot of each span in the flattened micro-batch."""
        return tuple(accumulate(self.widths[:-1], initial=0))

    @cached_property
    def n_slots(self) -> int:
        """Length of the flattened micro-batch, padding included."""
        return sum(self.widths)

    def slots(self, first: int, stop: int) -> slice:
        """Return the slots of spans ``first`` to ``stop``."""
        end = self.n_slots if stop == len(self.lengths) else self.starts[stop]
        return slice(self.starts[first], end)

    def row_slots(self, span: int) -> torch.Tensor:
        """Return the slot of each token of the row that ends with a span, its prefix included, int64 on the CPU."""
        parts = [part for part in (self.parents[span], span) if part >= 0]
        return torch.cat([torch.arange(self.lengths[part]) + self.starts[part] for part in parts])

    @cached_property
    def groups(self) -> tuple[AttentionGroup, ...]:
        """Rows of similar length, padded together for attention."""
        assert max(self.parents) < 0, "a group of rows cannot attend to a shared prefix"
        return group_rows(self.lengths, self.starts, self.device)

    @cached_property
    def positions(self) -> torch.Tensor:
        """Each token's position in its row, int64 [1, n_slots] packed or [rows, width] padded; 0 behind a row's end."""
        before = [0 if parent < 0 else self.lengths[parent] for parent in self.parents]
        return self.lay_out([torch.arange(length) + n for length, n in zip(self.lengths, before, strict=True)])

    @cached_property
    def attention_mask(self) -> torch.Tensor:
        """The mask of real tokens, int64, laid out as the micro-batch."""
        return self.lay_out([torch.ones(length, dtype=torch.int64) for length in self.lengths])

    def lay_out(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Lay out one tensor a span, [1, n_slots] packed or [rows, width] padded, filled with zeros."""
        filled = [F.pad(part, (0, width - len(part))) for part, width in zip(parts, self.widths, strict=True)]
        return (torch.stack(filled) if self.padded else torch.cat(filled)[None]).to(self.device)

"""Which tokens of a pass belong to which row and which adapter.

A pass is what goes through the model at once. Packed, its rows lie end to end in one sequence; padded, each row fills
its own line up to the longest. The layers ask for the current pass instead of being handed it,
because Transformers' models do not pass unknown arguments through every layer.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch.nn import functional as F

from lorascope.modeling.dropout import DropoutStreams
from lorascope.modeling.grouping import AttentionGroup, group_rows
from lorascope.modeling.kernels.calls import KernelRows, Kernels

BASE_ONLY = -1
"""Adapter index of rows that no adapter touches."""
SLOT_MULTIPLE = 64
"""A packed adapter's rows are filled up to a multiple of this many slots."""


@dataclass(frozen=True, kw_only=True)
class PassLayout:
    """Rows of one pass in order; rows of one adapter stand next to each other.

    Raises:
        AssertionError: when rows of one adapter are scattered.
    """

    lengths: tuple[int, ...]
    """Real tokens of each row."""
    adapters: tuple[int, ...]
    """Adapter index of each row, or ``BASE_ONLY``."""
    device: torch.device
    """Where index tensors live."""
    padded: bool = False

    def __post_init__(self) -> None:
        assert len(self.lengths) == len(self.adapters) > 0
        changes = sum(a != b for a, b in zip(self.adapters, self.adapters[1:], strict=False))
        assert changes == len(set(self.adapters)) - 1, "rows of one adapter must be neighbours"

    @cached_property
    def _runs(self) -> tuple[tuple[int, int, int], ...]:
        """``(adapter, first row, row after the last)`` of neighbours with one adapter, or with none."""
        found, first = [], 0
        for row in range(1, len(self.adapters) + 1):
            if row == len(self.adapters) or self.adapters[row] != self.adapters[first]:
                found.append((self.adapters[first], first, row))
                first = row
        return tuple(found)

    @cached_property
    def segments(self) -> tuple[tuple[int, int, int], ...]:
        """``(adapter, first row, row after the last)`` of each adapter's rows, base-only rows left out."""
        return tuple(run for run in self._runs if run[0] != BASE_ONLY)

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Slots of each row.

        Padded, all rows are as wide as the longest. Packed, the last row of each adapter is filled up so that its rows
        together are a multiple of 64 slots: the matrix library prepares (and keeps) code for every shape it meets.
        """
        if self.padded:
            return (max(self.lengths),) * len(self.lengths)
        widths = list(self.lengths)
        for _, first, stop in self._runs:
            widths[stop - 1] += -sum(self.lengths[first:stop]) % SLOT_MULTIPLE
        return tuple(widths)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First slot of each row in the flattened pass."""
        return tuple(accumulate(self.widths[:-1], initial=0))

    @cached_property
    def n_slots(self) -> int:
        """Length of the flattened pass, padding included."""
        return sum(self.widths)

    def slots(self, first_row: int, stop_row: int) -> slice:
        """Return the slots of a run of rows."""
        stop = self.n_slots if stop_row == len(self.lengths) else self.starts[stop_row]
        return slice(self.starts[first_row], stop)

    @cached_property
    def kernel_rows(self) -> KernelRows:
        """Where each row lies, for the compiled kernels."""
        starts, lengths, widths = (torch.tensor(part) for part in (self.starts, self.lengths, self.widths))
        return KernelRows(starts=starts, lengths=lengths, widths=widths)

    @cached_property
    def groups(self) -> tuple[AttentionGroup, ...]:
        """Rows of similar length, for attention over a packed pass."""
        return group_rows(self.lengths, self.starts, self.device)

    @cached_property
    def positions(self) -> torch.Tensor:
        """Each token's position in its row, int64 [1, n_slots] packed or [rows, width] padded; 0 behind a row's end."""
        return self.lay_out([torch.arange(length) for length in self.lengths])

    @cached_property
    def attention_mask(self) -> torch.Tensor:
        """The mask of real tokens, int64, laid out as the pass."""
        return self.lay_out([torch.ones(length, dtype=torch.int64) for length in self.lengths])

    def lay_out(self, rows: Sequence[torch.Tensor]) -> torch.Tensor:
        """Lay one tensor a row out as the pass, [1, n_slots] packed or [rows, width] padded, filled with zeros."""
        filled = [F.pad(row, (0, width - len(row))) for row, width in zip(rows, self.widths, strict=True)]
        return (torch.stack(filled) if self.padded else torch.cat(filled)[None]).to(self.device)


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivePass:
    """The pass that is going through the model, with the dropout of its rows (None: no dropout)."""

    layout: PassLayout
    streams: DropoutStreams | None = None
    kernels: Kernels | None = None
    """The compiled kernels, where they may be used."""


_active: ContextVar[ActivePass | None] = ContextVar("lorascope_active_pass", default=None)


@contextmanager
def active_pass(current: ActivePass) -> Iterator[None]:
    """Make a pass the current one for the layers inside the ``with`` block."""
    token = _active.set(current)
    try:
        yield
    finally:
        _active.reset(token)


def current_pass() -> ActivePass | None:
    """Return the pass that is going through the model, or None outside of one."""
    return _active.get()

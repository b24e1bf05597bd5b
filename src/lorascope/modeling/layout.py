"""Which tokens of a pass belong to which row and which adapter.

A pass is what goes through the model at once. Packed, its rows lie end to end in one sequence without padding;
padded, each row fills its own line up to the longest. The layers ask for the current pass instead of being handed it,
because Transformers' models do not pass unknown arguments through every layer.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property

import torch

from lorascope.modeling.dropout import DropoutStreams
from lorascope.modeling.grouping import AttentionGroup, group_rows

BASE_ONLY = -1
"""Adapter index of rows that no adapter touches."""


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
    def line(self) -> int:
        """Slots of a row when padded."""
        return max(self.lengths)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First slot of each row in the flattened pass."""
        if self.padded:
            return tuple(range(0, self.n_slots, self.line))
        starts, at = [], 0
        for length in self.lengths:
            starts.append(at)
            at += length
        return tuple(starts)

    @cached_property
    def n_slots(self) -> int:
        """Length of the flattened pass, padding included."""
        return self.line * len(self.lengths) if self.padded else sum(self.lengths)

    @cached_property
    def segments(self) -> tuple[tuple[int, int, int], ...]:
        """``(adapter, first row, row after the last)`` of each adapter's rows, base-only rows left out."""
        found, first = [], 0
        for row in range(1, len(self.adapters) + 1):
            if row == len(self.adapters) or self.adapters[row] != self.adapters[first]:
                if self.adapters[first] != BASE_ONLY:
                    found.append((self.adapters[first], first, row))
                first = row
        return tuple(found)

    def slots(self, first_row: int, stop_row: int) -> slice:
        """Return the slots of a run of rows."""
        stop = self.n_slots if stop_row == len(self.lengths) else self.starts[stop_row]
        return slice(self.starts[first_row], stop)

    @cached_property
    def groups(self) -> tuple[AttentionGroup, ...]:
        """Rows of similar length, for attention over a packed pass."""
        return group_rows(self.lengths, self.starts, self.device)

    @cached_property
    def positions(self) -> torch.Tensor:
        """Each token's position in its row, int64 [1, n_slots] packed or [rows, line] padded."""
        if self.padded:
            return torch.arange(self.line, device=self.device).expand(len(self.lengths), -1)
        return torch.cat([torch.arange(length) for length in self.lengths])[None].to(self.device)

    @cached_property
    def attention_mask(self) -> torch.Tensor:
        """The mask of real tokens of a padded pass, int64 [rows, line]."""
        lengths = torch.tensor(self.lengths, device=self.device)
        return (torch.arange(self.line, device=self.device)[None] < lengths[:, None]).long()

    def lay_out(self, rows: Sequence[torch.Tensor]) -> torch.Tensor:
        """Lay one tensor a row out as the pass, [1, n_slots] packed or [rows, line] padded with zeros."""
        if not self.padded:
            return torch.cat(list(rows))[None].to(self.device)
        return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True).to(self.device)


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivePass:
    """The pass that is going through the model, with the dropout of its rows (None: no dropout)."""

    layout: PassLayout
    streams: DropoutStreams | None = None


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

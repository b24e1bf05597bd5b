"""Dropout whose bits the compiled kernels make, one bit an element; the same bits as Torch's way.

Shape legend: n slots of neighbouring rows, I in_features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from lorascope.modeling.adapters.dropout import drop_below
from lorascope.modeling.backends.cpu.bindings import Kernels
from lorascope.modeling.backends.cpu.ctypes_structs import KernelRows
from lorascope.modeling.backends.torch.dropout import TorchDropout, TorchDropoutRows


@dataclass(frozen=True, kw_only=True, eq=False)
class KernelDropoutRows:
    """Neighbouring rows of a micro-batch with the keys of their random bits."""

    kernels: Kernels
    keys: torch.Tensor
    """int32 [rows, 4], the bits of unsigned words."""
    lengths: Sequence[int]
    widths: Sequence[int]

    @cached_property
    def rows(self) -> KernelRows:
        """Where the rows lie, counted from the first of them."""
        return KernelRows.end_to_end(self.lengths, self.widths)

    def at(self, draw: int, p: float) -> "KernelDropout":
        """Return the dropout of the layer that draws after ``draw`` others."""
        return KernelDropout(rows=self, draw=draw, p=p)


@dataclass(frozen=True, kw_only=True, eq=False)
class KernelDropout:
    """One layer's dropout; tensors that the kernels do not take are masked by Torch."""

    rows: KernelDropoutRows
    draw: int
    p: float

    def dropped(self, x_nI: torch.Tensor) -> torch.Tensor:
        """Return x where it is kept and 0 elsewhere."""
        if not self.rows.kernels.takes(x_nI):
            return self._torch.dropped(x_nI)
        return self.rows.kernels.dropout(x_nI, self.rows.rows, self.kept_bits(x_nI.shape[-1]))

    def add_dropped_(self, out_nI: torch.Tensor, x_nI: torch.Tensor) -> None:
        """Add x to ``out`` where it is kept."""
        if self.rows.kernels.takes(x_nI):
            self.rows.kernels.add_dropped_(out_nI, x_nI, self.rows.rows, self.kept_bits(x_nI.shape[-1]))
        else:
            self._torch.add_dropped_(out_nI, x_nI)

    def kept_bits(self, features: int) -> torch.Tensor:
        """Return which inputs are kept, as ``Kernels.dropout_bits`` gives it."""
        if features not in self._bits:
            self._bits[features] = self.rows.kernels.dropout_bits(
                features, self.rows.rows, self.rows.keys, draw=self.draw, drop_below=drop_below(self.p)
            )
        return self._bits[features]

    @cached_property
    def _bits(self) -> dict[int, torch.Tensor]:
        return {}

    @cached_property
    def _torch(self) -> TorchDropout:
        rows = self.rows
        return TorchDropoutRows(keys=rows.keys, lengths=rows.lengths, widths=rows.widths).at(self.draw, self.p)

"""LoRA dropout that does not depend on what else is in the pass.

Every row of a trial's step has random bits of its own, named by (seed, step, row) and by how many layers drew before in
the pass; so has every prefix that rows of the step share. So a row gets the same masks trained jointly or alone, whole
or in passes of any size, and after a resume. The backward pass finds a mask where the forward pass left it, one bit an
element.

The bits come from a counter: Threefry-4x32 with 12 rounds (Salmon et al. 2011, "Parallel random numbers: as easy as
1, 2, 3", section 4). The compiled kernels make the same bits; here they are for devices and machines without them.

Shape legend: n slots of some neighbouring rows, I features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from lorascope.modeling.backends.cpu.bindings import Kernels
from lorascope.modeling.backends.cpu.ctypes_structs import KernelRows

PREFIX_NAMES = 1 << 31
"""A prefix that rows share goes by the number of the first of them plus this."""
_LEVELS = 1 << 16
"""A mask element is decided by 16 random bits: p is met to within 1/131072, and the scale follows the p that is met."""
_ROTATIONS = ((10, 26), (11, 21), (13, 27), (23, 5), (6, 20), (17, 11), (25, 10), (18, 20))
_ROUNDS = 12
_CPU = torch.device("cpu")
_LANES = 16
_BLOCK = 128
"""Elements of a row in one block: 16 counters of 8 draws each."""


def realised_probability(p: float) -> float:
    """Return the probability that 16 bits can express nearest to ``p``."""
    return _drop_below(p) / _LEVELS


def _drop_below(p: float) -> int:
    return min(round(p * _LEVELS), _LEVELS - 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class DropoutRows:
    """Neighbouring rows of a pass with the names of their random bits."""

    keys: torch.Tensor
    """int32 [rows, 4], the bits of unsigned words."""
    rows: KernelRows
    """Where the rows lie, counted from the first of them."""
    kernels: Kernels | None

    def at(self, draw: int, p: float) -> "Dropout":
        """Return the dropout of the layer that draws after ``draw`` others."""
        return Dropout(rows=self, draw=draw, p=p)


@dataclass(frozen=True, kw_only=True, eq=False)
class Dropout:
    """One layer's dropout of some neighbouring rows; it zeroes and does not scale."""

    rows: DropoutRows
    draw: int
    p: float

    def dropped(self, x_nI: torch.Tensor) -> torch.Tensor:
        """Return x where it is kept and 0 elsewhere."""
        kernels = self.rows.kernels
        if kernels is None or not kernels.takes(x_nI):
            return x_nI * self.keep_mask(x_nI.shape[-1], x_nI.device)
        return kernels.dropout(x_nI, self.rows.rows, self.kept_bits(kernels, x_nI.shape[-1]))

    def add_dropped_(self, out_nI: torch.Tensor, x_nI: torch.Tensor) -> None:
        """Add x to ``out`` where it is kept."""
        kernels = self.rows.kernels
        if kernels is None or not kernels.takes(x_nI):
            out_nI.add_(x_nI * self.keep_mask(x_nI.shape[-1], x_nI.device))
        else:
            kernels.add_dropped_(out_nI, x_nI, self.rows.rows, self.kept_bits(kernels, x_nI.shape[-1]))

    def kept_bits(self, kernels: Kernels, features: int) -> torch.Tensor:
        """Return which inputs are kept, as ``Kernels.dropout_bits`` gives it."""
        if features not in self._bits:
            below = _drop_below(self.p)
            self._bits[features] = kernels.dropout_bits(
                features, self.rows.rows, self.rows.keys, draw=self.draw, drop_below=below
            )
        return self._bits[features]

    def keep_mask(self, features: int, device: torch.device = _CPU) -> torch.Tensor:
        """Return bool [n, features], True where an input is kept; what lies behind a row's tokens is kept."""
        if features not in self._masks:
            rows = self.rows.rows
            sizes = rows.lengths * features
            bits = _bits(self.rows.keys.to(device), self.draw, sizes.to(device))
            kept = torch.ones(int(rows.widths.sum()), features, dtype=torch.bool, device=device)
            places = zip(rows.starts.tolist(), rows.lengths.tolist(), sizes.tolist(), bits, strict=True)
            for start, length, size, numbers in places:
                kept[start : start + length] = (numbers[:size] >= _drop_below(self.p)).view(length, features)
            self._masks[features] = kept
        return self._masks[features]

    @cached_property
    def _masks(self) -> dict[int, torch.Tensor]:
        return {}

    @cached_property
    def _bits(self) -> dict[int, torch.Tensor]:
        return {}


def _bits(keys: torch.Tensor, draw: int, sizes: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return at least ``sizes`` 16-bit numbers of each row's stream, one int32 tensor a row.

    Lane l of a block takes the counter (16 * block + l, draw); its four words give, low half first, the numbers of
    elements l, 16 + l, ... 112 + l of the block.
    """
    blocks = (sizes + _BLOCK - 1) // _BLOCK
    row = torch.repeat_interleave(torch.arange(len(blocks), device=keys.device), blocks)
    block = torch.arange(len(row), device=keys.device) - (blocks.cumsum(0) - blocks)[row]
    counter = torch.zeros(4, len(row), _LANES, dtype=torch.int32, device=keys.device)
    counter[0] = block[:, None] * _LANES + torch.arange(_LANES, device=keys.device)
    counter[1] = draw
    words = _threefry(keys.T[:, row, None], counter)
    halves = torch.stack([words & 0xFFFF, words >> 16 & 0xFFFF], dim=1)
    by_row = halves.permute(2, 0, 1, 3).reshape(-1, _BLOCK).split(blocks.tolist())
    return tuple(part.flatten() for part in by_row)


def _threefry(key: torch.Tensor, counter: torch.Tensor) -> torch.Tensor:
    """Return the random words of counters, int32 [4, ...] for [4, ...]; int32 stands for unsigned words and wraps."""
    keys = [*key, key[0] ^ key[1] ^ key[2] ^ key[3] ^ 0x1BD11BDA]
    x = [counter[word] + keys[word] for word in range(4)]
    for done in range(_ROUNDS):
        # the second and the fourth word change partners after every round
        pairs = ((0, 1), (2, 3)) if done % 2 == 0 else ((0, 3), (2, 1))
        for (to, word), left in zip(pairs, _ROTATIONS[done % 8], strict=True):
            x[to] = x[to] + x[word]
            x[word] = (x[word] << left | x[word] >> 32 - left & (1 << left) - 1) ^ x[to]
        if done % 4 == 3:
            turn = done // 4 + 1
            x = [x[word] + keys[(turn + word) % 5] for word in range(4)]
            x[3] = x[3] + turn
    return torch.stack(x)


class DropoutStreams:
    """Random bits of the rows of one pass; a shared prefix is a row here.

    Args:
        names: ``(seed, step, row)`` of each row in the pass, ``(seed, step, PREFIX_NAMES + first row)`` of a prefix.
        lengths: real tokens of each row.
        widths: slots of each row.
        kernels: the compiled kernels, or None.
    """

    def __init__(
        self,
        names: Sequence[tuple[int, int, int]],
        *,
        lengths: Sequence[int],
        widths: Sequence[int],
        kernels: Kernels | None,
    ) -> None:
        words = np.array([(seed & 0xFFFFFFFF, seed >> 32, step, row) for seed, step, row in names], dtype=np.uint32)
        self._keys = torch.from_numpy(words.view(np.int32))
        self._lengths, self._widths, self._kernels = lengths, widths, kernels
        self._found: dict[tuple[int, int], DropoutRows] = {}
        self._draws = 0

    def next_draw(self) -> int:
        """Return how many layers have drawn before the one that asks."""
        self._draws += 1
        return self._draws - 1

    def rows(self, first: int, stop: int) -> DropoutRows:
        """Return rows ``first`` to ``stop`` of the pass."""
        if (first, stop) not in self._found:
            lengths, widths = torch.tensor(self._lengths[first:stop]), torch.tensor(self._widths[first:stop])
            alone = torch.full_like(lengths, -1)
            where = KernelRows(starts=widths.cumsum(0) - widths, lengths=lengths, widths=widths, parents=alone)
            self._found[first, stop] = DropoutRows(keys=self._keys[first:stop], rows=where, kernels=self._kernels)
        return self._found[first, stop]

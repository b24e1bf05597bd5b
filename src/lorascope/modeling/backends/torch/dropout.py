"""Dropout from a counter in Torch's operations, on any device: Threefry-4x32 with 12 rounds.

Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 4. The compiled kernels make the same bits.

Shape legend: n slots of neighbouring rows, I in_features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch

from lorascope.modeling.adapters.dropout import drop_below

_ROTATIONS = ((10, 26), (11, 21), (13, 27), (23, 5), (6, 20), (17, 11), (25, 10), (18, 20))
_ROUNDS = 12
_CPU = torch.device("cpu")
_LANES = 16
_BLOCK = 128
"""Elements of a row in one block: 16 counters of 8 draws each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TorchDropoutRows:
    """Neighbouring rows of a micro-batch with the keys of their random bits."""

    keys: torch.Tensor
    """int32 [rows, 4], the bits of unsigned words."""
    lengths: Sequence[int]
    widths: Sequence[int]

    def at(self, draw: int, p: float) -> "TorchDropout":
        """Return the dropout of the layer that draws after ``draw`` others."""
        return TorchDropout(rows=self, draw=draw, p=p)


@dataclass(frozen=True, kw_only=True, eq=False)
class TorchDropout:
    """One layer's dropout as a mask of one byte an element, kept for the backward pass."""

    rows: TorchDropoutRows
    draw: int
    p: float

    def dropped(self, x_nI: torch.Tensor) -> torch.Tensor:
        """Return x where it is kept and 0 elsewhere."""
        return x_nI * self.keep_mask(x_nI.shape[-1], x_nI.device)

    def add_dropped_(self, out_nI: torch.Tensor, x_nI: torch.Tensor) -> None:
        """Add x to ``out`` where it is kept."""
        out_nI.add_(x_nI * self.keep_mask(x_nI.shape[-1], x_nI.device))

    def keep_mask(self, features: int, device: torch.device = _CPU) -> torch.Tensor:
        """Return bool [n, features], True where an input is kept; the slots behind a row's tokens are kept."""
        if features not in self._masks:
            lengths, widths = self.rows.lengths, self.rows.widths
            bits = _bits(self.rows.keys.to(device), self.draw, [length * features for length in lengths])
            kept = torch.ones(sum(widths), features, dtype=torch.bool, device=device)
            starts = accumulate(widths[:-1], initial=0)
            for start, length, numbers in zip(starts, lengths, bits, strict=True):
                own = numbers[: length * features] >= drop_below(self.p)
                kept[start : start + length] = own.view(length, features)
            self._masks[features] = kept
        return self._masks[features]

    @cached_property
    def _masks(self) -> dict[int, torch.Tensor]:
        return {}


def _bits(keys: torch.Tensor, draw: int, sizes: Sequence[int]) -> tuple[torch.Tensor, ...]:
    """Return at least ``sizes`` 16-bit numbers of each row's stream, one int32 tensor a row.

    Lane l of a block takes the counter (16 * block + l, draw); its four words give, low half first, the numbers of
    elements l, 16 + l, ... 112 + l of the block.
    """
    counts = [-(-size // _BLOCK) for size in sizes]
    blocks = torch.tensor(counts, device=keys.device)
    row = torch.repeat_interleave(torch.arange(len(counts), device=keys.device), blocks)
    block = torch.arange(len(row), device=keys.device) - (blocks.cumsum(0) - blocks)[row]
    counter = torch.zeros(4, len(row), _LANES, dtype=torch.int32, device=keys.device)
    counter[0] = block[:, None] * _LANES + torch.arange(_LANES, device=keys.device)
    counter[1] = draw
    words = _threefry(keys.T[:, row, None], counter)
    halves = torch.stack([words & 0xFFFF, words >> 16 & 0xFFFF], dim=1)
    by_row = halves.permute(2, 0, 1, 3).reshape(-1, _BLOCK).split(counts)
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

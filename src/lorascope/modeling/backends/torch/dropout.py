"""Dropout from a counter in Torch's operations, on any device: Threefry-4x32 with 12 rounds.

Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 4. The compiled kernels make the same bits.

Shape legend: n slots of neighbouring rows, I in_features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

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

    def blocks(self, features: int, device: torch.device) -> "_Blocks":
        """Return the blocks of a layer's inputs; made on the CPU, so that a GPU is never waited for."""
        if features not in self._blocks:
            counts = [-(-width * features // _BLOCK) for width in self.widths]
            behind = [torch.arange(w) >= n for n, w in zip(self.lengths, self.widths, strict=True)]
            self._blocks[features] = _Blocks(
                counts=counts,
                keys=self.keys.repeat_interleave(torch.tensor(counts), dim=0)
                .T[..., None]
                .to(device, non_blocking=True),
                numbers=torch.cat([torch.arange(n, dtype=torch.int32) for n in counts]).to(device, non_blocking=True),
                padding=torch.cat(behind)[:, None].to(device, non_blocking=True),
            )
        return self._blocks[features]

    @cached_property
    def _blocks(self) -> dict[int, "_Blocks"]:
        return {}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Blocks:
    """The blocks of all rows, end to end."""

    counts: Sequence[int]
    """Of each row."""
    keys: torch.Tensor
    """int32 [4, blocks, 1], the key of each one's row."""
    numbers: torch.Tensor
    """int32 [blocks], counted in each row."""
    padding: torch.Tensor
    """bool [n, 1], True for slots behind a row's tokens."""


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
            blocks = self.rows.blocks(features, device)
            bits = _bits(blocks, self.draw)
            if features % _BLOCK:  # the last block of each row ends behind its slots
                sizes = [width * features for width in self.rows.widths]
                parts = zip(bits.split(blocks.counts), sizes, strict=True)
                bits = torch.cat([part.flatten()[:size] for part, size in parts])
            self._masks[features] = (bits.view(-1, features) >= drop_below(self.p)).logical_or_(blocks.padding)
        return self._masks[features]

    @cached_property
    def _masks(self) -> dict[int, torch.Tensor]:
        return {}


def _bits(blocks: _Blocks, draw: int) -> torch.Tensor:
    """Return the 16-bit numbers of each block, int32 [blocks, 128].

    Lane l of a block takes the counter (16 * block + l, draw); its four words give, low half first, the numbers of
    elements l, 16 + l, ... 112 + l of the block.
    """
    lanes = torch.arange(_LANES, dtype=torch.int32, device=blocks.numbers.device)
    first = blocks.numbers[:, None] * _LANES + lanes
    counter = torch.stack([first, torch.full_like(first, draw), *[torch.zeros_like(first)] * 2])
    words = _threefry(blocks.keys, counter)
    halves = torch.stack([words & 0xFFFF, words >> 16 & 0xFFFF], dim=1)
    return halves.permute(2, 0, 1, 3).reshape(-1, _BLOCK)


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

"""LoRA dropout that does not depend on what else is in the micro-batch.

Every row of a trial's step has random bits of its own, named by (seed, step, row) and by how many layers of its adapter
drew before in the micro-batch; so has every prefix that rows of the step share. So a row gets the same masks trained
jointly or alone, in micro-batches of any size, beside adapters of other layers, and after a resume. Backends make the
bits from a counter (see ``backends/torch/dropout``) and keep a mask for the backward pass.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from lorascope.modeling.backends.protocol import Backend, DropoutRows

PREFIX_NAMES = 1 << 31
"""A prefix that rows share goes by the number of the first of them plus this."""
_LEVELS = 1 << 16
"""A mask element is decided by 16 random bits: p is met to within 1/131072, and the scale follows the p that is met."""


def realised_probability(p: float) -> float:
    """Return the probability that 16 bits can express nearest to ``p``."""
    return drop_below(p) / _LEVELS


def drop_below(p: float) -> int:
    """Return the 16-bit number below which an element is dropped."""
    return min(round(p * _LEVELS), _LEVELS - 1)


class DropoutStreams:
    """Random bits of the rows of one micro-batch; a shared prefix is a row here.

    Args:
        names: ``(seed, step, row)`` of each row in the micro-batch, ``(seed, step, PREFIX_NAMES + first row)`` of a
            prefix.
        lengths: real tokens of each row.
        widths: slots of each row.
        backend: makes the bits.
    """

    def __init__(
        self,
        names: Sequence[tuple[int, int, int]],
        *,
        lengths: Sequence[int],
        widths: Sequence[int],
        backend: Backend,
    ) -> None:
        words = np.array([(seed & 0xFFFFFFFF, seed >> 32, step, row) for seed, step, row in names], dtype=np.uint32)
        self._keys = torch.from_numpy(words.view(np.int32))
        self._lengths, self._widths, self._backend = lengths, widths, backend
        self._found: dict[tuple[int, int], DropoutRows] = {}
        self._draws: Counter[int] = Counter()

    def next_draw(self, adapter: int) -> int:
        """Return how many layers of an adapter have drawn before the one that asks."""
        self._draws[adapter] += 1
        return self._draws[adapter] - 1

    def rows(self, first: int, stop: int) -> DropoutRows:
        """Return rows ``first`` to ``stop`` of the micro-batch."""
        if (first, stop) not in self._found:
            own = slice(first, stop)
            self._found[first, stop] = self._backend.dropout_rows(
                self._keys[own], lengths=self._lengths[own], widths=self._widths[own]
            )
        return self._found[first, stop]

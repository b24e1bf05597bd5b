"""LoRA dropout that does not depend on what else is in the pass.

Every row of a trial's step has a random stream of its own, named by (seed, step, row), from which the adapted layers
draw in the order the model calls them. So a row gets the same masks trained jointly or alone, whole or in passes of
any size, and after a resume.
"""

from collections.abc import Sequence

import numpy as np
import torch

_LEVELS = 1 << 16
"""A mask element is decided by 16 random bits: p is met to within 1/131072, and the scale follows the p that is met."""


def realised_probability(p: float) -> float:
    """Return the probability that 16 bits can express nearest to ``p``."""
    return _drop_below(p) / _LEVELS


def _drop_below(p: float) -> int:
    return min(round(p * _LEVELS), _LEVELS - 1)


class DropoutStreams:
    """Random streams of the rows of one pass.

    Args:
        keys: ``(seed, step, row)`` of each row in the pass.
    """

    def __init__(self, keys: Sequence[tuple[int, int, int]]) -> None:
        self._streams = [np.random.Generator(np.random.SFC64(key)) for key in keys]

    def keep_mask(
        self,
        lengths: Sequence[int],
        *,
        widths: Sequence[int],
        first_row: int,
        features: int,
        p: float,
        device: torch.device,
    ) -> torch.Tensor:
        """Draw which inputs to keep for neighbouring rows.

        Args:
            lengths: real tokens of each row, from ``first_row`` on.
            widths: slots of each row; what lies behind its tokens draws nothing and is kept.
            first_row: index of the first row in the pass.
            features: features of a token.
            p: probability of dropping.
            device: where the mask is wanted.

        Returns:
            bool [slots, features], True where the input is kept.
        """
        drop_below = _drop_below(p)
        starts = np.cumsum([0, *widths])
        kept = np.ones((int(starts[-1]), features), dtype=np.bool_)
        for i, length in enumerate(lengths):
            n_words = -(-length * features // 4)
            words = self._streams[first_row + i].integers(0, 1 << 64, size=n_words, dtype=np.uint64)
            bits = words.view(np.uint16)[: length * features].reshape(length, features)
            np.greater_equal(bits, drop_below, out=kept[starts[i] : starts[i] + length])
        return torch.from_numpy(kept).to(device)

"""Rows as text, with their targets marked."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from transformers import PreTrainedTokenizerBase

from lorascope.data.dataset import Example
from lorascope.records import ShownRow

SHOWN = 3
"""Training rows that a study keeps to be shown."""


def shown_rows(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> tuple[ShownRow, ...]:
    """Return the texts of examples, numbered from 1."""
    return tuple(
        ShownRow(row=number, pieces=_pieces(example, tokenizer), tokens=example.n_tokens, targets=example.n_targets)
        for number, example in enumerate(examples, start=1)
    )


def _pieces(example: Example, tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    ids, mask = example.input_ids.tolist(), example.target_mask
    borders = [0, *(np.flatnonzero(mask[1:] != mask[:-1]) + 1).tolist(), len(ids)]
    pieces, before = [], ""
    for start, end in pairwise(borders):
        # a piece's own decoding would lose the blank in front of it, or half of a character
        through = str(tokenizer.decode(ids[:end], clean_up_tokenization_spaces=False))
        alone = through[len(before) :] if through.startswith(before) else str(tokenizer.decode(ids[start:end]))
        pieces.append(alone)
        before = through
    return tuple(pieces)

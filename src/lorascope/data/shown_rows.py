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
    return tuple(decode_behind(tokenizer, ids[:start], ids[start:end]) for start, end in pairwise(borders))


def decode_behind(tokenizer: PreTrainedTokenizerBase, before: Sequence[int], ids: Sequence[int]) -> str:
    """Return the text that tokens add behind others.

    Their own decoding would lose the blank in front of them, or half of a character.
    """
    known = _decode(tokenizer, before)
    through = _decode(tokenizer, [*before, *ids])
    return through[len(known) :] if through.startswith(known) else _decode(tokenizer, ids)


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)) if ids else ""

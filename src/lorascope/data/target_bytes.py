"""Bytes of text that the targets of rows stand for, by which losses under different tokenizers can be compared."""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from transformers import PreTrainedTokenizerBase

from lorascope.data.dataset import Example
from lorascope.data.shown_rows import decode_behind


def target_bytes(rows: Iterable[Example], tokenizer: PreTrainedTokenizerBase) -> int:
    """Count the bytes of the targets' text in UTF-8, special tokens left out."""
    special = set(tokenizer.all_special_ids)
    return sum(len(text.encode()) for row in rows for text in _texts(row, tokenizer, special))


def _texts(row: Example, tokenizer: PreTrainedTokenizerBase, special: set[int]) -> Iterable[str]:
    ids, mask = row.input_ids.tolist(), row.target_mask
    borders = [0, *(np.flatnonzero(mask[1:] != mask[:-1]) + 1).tolist(), len(ids)]
    for start, stop in list(pairwise(borders))[1::2]:  # the first token is no target
        yield decode_behind(tokenizer, ids[start - 1 : start], [one for one in ids[start:stop] if one not in special])

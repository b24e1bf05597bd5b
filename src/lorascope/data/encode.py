"""Tokenisation and the loss mask.

Prompt and completion are tokenised together, as the model meets them; the mask follows from character offsets.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from lorascope.data.dataset import Example
from lorascope.data.formats.rendering import RenderedRow

_BATCH_ROWS = 1000
"""Rows tokenised at once: enough for the tokenizer's threads, little memory for offsets."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TokenizedRow:
    """One row's tokens before truncation, [L] both."""

    input_ids: npt.NDArray[np.int64]
    target_mask: npt.NDArray[np.bool_]

    def truncate(self, max_length: int) -> Example | None:
        """Truncate to ``max_length`` tokens; None if no target is left."""
        mask = self.target_mask[:max_length]
        return Example(input_ids=self.input_ids[:max_length], target_mask=mask) if mask.any() else None


def encode(
    rows: Sequence[RenderedRow], tokenizer: PreTrainedTokenizerBase, *, is_chat: bool, completion_only: bool
) -> Iterator[TokenizedRow]:
    """Tokenise rows in order.

    The tokenizer adds its special tokens in front, and each row ends with one end token as a target; a chat template
    adds both itself.
    """
    for start in range(0, len(rows), _BATCH_ROWS):
        batch = rows[start : start + _BATCH_ROWS]
        tokenise = _by_offsets if tokenizer.is_fast else _by_pieces
        parts = tokenise(batch, tokenizer, is_chat)
        for ids, mask in parts:
            yield _finish(ids, mask if completion_only else np.ones(len(ids), bool), tokenizer, is_chat=is_chat)


def mask_by_characters(offsets: npt.NDArray[np.int64], spans: Sequence[tuple[int, int]]) -> npt.NDArray[np.bool_]:
    """Return the mask [L] of tokens with a character in a span, from offsets [L, 2] (start, end).

    A token across the start of a span belongs to it. An empty token (tokenizers may trim white space) belongs to the
    span that it is in or ends, as the trimmed text preceded it.
    """
    mask = np.zeros(len(offsets), dtype=bool)
    starts, ends = offsets[:, 0], offsets[:, 1]
    for first, end in spans:
        mask |= (ends > first) & ((starts < end) | ((starts == ends) & (ends == end)))
    return mask


def _by_offsets(
    rows: Sequence[RenderedRow], tokenizer: PreTrainedTokenizerBase, is_chat: bool
) -> Iterator[tuple[list[int], npt.NDArray[np.bool_]]]:
    batch = tokenizer(
        [row.text for row in rows],
        add_special_tokens=not is_chat,
        padding=False,
        truncation=False,
        return_offsets_mapping=True,
        verbose=False,
    )
    for row, ids, offsets in zip(rows, batch["input_ids"], batch["offset_mapping"], strict=True):
        yield ids, mask_by_characters(np.asarray(offsets, dtype=np.int64).reshape(-1, 2), row.spans)


def _by_pieces(
    rows: Sequence[RenderedRow], tokenizer: PreTrainedTokenizerBase, is_chat: bool
) -> Iterator[tuple[list[int], npt.NDArray[np.bool_]]]:
    """Tokenise prompt and completion separately, for tokenizers without offsets."""
    for row in rows:
        borders = [0, *(border for span in row.spans for border in span), len(row.text)]
        ids: list[int] = []
        mask: list[bool] = []
        for piece, (start, end) in enumerate(pairwise(borders)):
            piece_ids = tokenizer(row.text[start:end], add_special_tokens=False, verbose=False)["input_ids"]
            ids += piece_ids
            mask += [piece % 2 == 1] * len(piece_ids)
        if not is_chat and starts_with_bos(row.text, tokenizer):
            ids, mask = [tokenizer.bos_token_id, *ids], [False, *mask]
        yield ids, np.asarray(mask, dtype=bool)


def starts_with_bos(text: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return True if the tokenizer puts its start token before this text."""
    bare = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    whole = tokenizer(text, verbose=False)["input_ids"]
    return tokenizer.bos_token_id is not None and whole[:1] == [tokenizer.bos_token_id] and bare[:1] != whole[:1]


def _finish(
    ids: list[int], mask: npt.NDArray[np.bool_], tokenizer: PreTrainedTokenizerBase, *, is_chat: bool
) -> TokenizedRow:
    if not is_chat:
        if len(ids) < 2 or ids[-1] != tokenizer.eos_token_id:
            ids, mask = [*ids, tokenizer.eos_token_id], np.append(mask, True)
        mask[-1] = True
    mask[:1] = False
    return TokenizedRow(input_ids=np.asarray(ids, dtype=np.int64), target_mask=mask)

"""Text to token ids and the mask of the loss.

The mask follows characters: prompt and completion are tokenised together, once, as the model will meet them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from lorascope.data.dataset import Example
from lorascope.data.formats.rendered_row import Rendered

TEXTS_AT_ONCE = 1000
"""Texts given to the tokenizer together: enough for its threads, little memory for their offsets."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Encoded:
    """One row's tokens before they are cut: [L] both."""

    input_ids: npt.NDArray[np.int64]
    target_mask: npt.NDArray[np.bool_]

    def cut(self, max_length: int) -> Example | None:
        """Cut at ``max_length`` tokens; None where no target is left, or nothing to predict one from."""
        mask = self.target_mask[:max_length]
        return Example(input_ids=self.input_ids[:max_length], target_mask=mask) if mask.any() else None


def encode(
    rows: Sequence[Rendered], tokenizer: PreTrainedTokenizerBase, *, is_chat: bool, completion_only: bool
) -> Iterator[Encoded]:
    """Tokenise rows in order.

    Special tokens at the front are the tokenizer's own, and one end token closes each row as a target; a chat
    template brings both itself.
    """
    for start in range(0, len(rows), TEXTS_AT_ONCE):
        some = rows[start : start + TEXTS_AT_ONCE]
        parts = _with_offsets(some, tokenizer, is_chat) if tokenizer.is_fast else _in_pieces(some, tokenizer, is_chat)
        for ids, mask in parts:
            yield _finish(ids, mask if completion_only else np.ones(len(ids), bool), tokenizer, is_chat=is_chat)


def mask_by_characters(offsets: npt.NDArray[np.int64], spans: Sequence[tuple[int, int]]) -> npt.NDArray[np.bool_]:
    """Mark the tokens ([L, 2] offsets: from, to) that hold a character of a span: [L].

    A token across a border belongs to the completion. A token without width (tokenizers may trim white space off)
    belongs to the span that it stands inside or at the end of, as what was trimmed lay before it.
    """
    mask = np.zeros(len(offsets), dtype=bool)
    starts, ends = offsets[:, 0], offsets[:, 1]
    for first, behind in spans:
        mask |= (ends > first) & ((starts < behind) | ((starts == ends) & (ends == behind)))
    return mask


def _with_offsets(
    rows: Sequence[Rendered], tokenizer: PreTrainedTokenizerBase, is_chat: bool
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


def _in_pieces(
    rows: Sequence[Rendered], tokenizer: PreTrainedTokenizerBase, is_chat: bool
) -> Iterator[tuple[list[int], npt.NDArray[np.bool_]]]:
    """Tokenise prompt and completion apart, for tokenizers that cannot say which characters a token holds."""
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
    """Say whether the tokenizer puts its start token before this text."""
    bare = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    whole = tokenizer(text, verbose=False)["input_ids"]
    return tokenizer.bos_token_id is not None and whole[:1] == [tokenizer.bos_token_id] and bare[:1] != whole[:1]


def _finish(
    ids: list[int], mask: npt.NDArray[np.bool_], tokenizer: PreTrainedTokenizerBase, *, is_chat: bool
) -> Encoded:
    if not is_chat:
        if len(ids) < 2 or ids[-1] != tokenizer.eos_token_id:
            ids, mask = [*ids, tokenizer.eos_token_id], np.append(mask, True)
        mask[-1] = True
    mask[:1] = False
    return Encoded(input_ids=np.asarray(ids, dtype=np.int64), target_mask=mask)

"""Tokenisation and the loss mask.

Prompt and completion are tokenised together, as the model meets them; the mask follows from character offsets.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from lorascope.data.dataset import Example
from lorascope.data.formats.rendering import RenderedRow

_BATCH_ROWS = 1000
"""Rows tokenised at once: enough for the tokenizer's threads, little memory for offsets."""
_LONGEST_TOKEN = 32
"""Characters before a border in which a text's beginning may be tokenised otherwise than in the whole text."""


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

    The tokenizer adds its special tokens in front, and each row ends with one end token as a target, where the text
    does not hold them already; a chat template adds both itself.
    """
    for start in range(0, len(rows), _BATCH_ROWS):
        batch = rows[start : start + _BATCH_ROWS]
        tokenise = _by_offsets if tokenizer.is_fast else _by_prefixes
        for row, (ids, mask) in zip(batch, tokenise(batch, tokenizer, is_chat), strict=True):
            masked = mask if completion_only else np.ones(len(ids), bool)
            yield _finish(ids, masked, None if is_chat else row.text, tokenizer)


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


def _by_prefixes(
    rows: Sequence[RenderedRow], tokenizer: PreTrainedTokenizerBase, is_chat: bool
) -> Iterator[tuple[list[int], npt.NDArray[np.bool_]]]:
    """Tokenise whole texts with tokenizers without offsets; tokens of a text's beginning tell where a span starts."""

    def tokens(text: str, *, special: bool = False) -> list[int]:
        return list(tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])

    for row in rows:
        ids, bare = tokens(row.text, special=not is_chat), tokens(row.text)
        before = next((at for at in range(len(ids)) if ids[at : at + len(bare)] == bare), 0)
        mask = np.zeros(len(ids), dtype=bool)
        for start, end in row.spans:
            first, _ = _tokens_within(row.text, start, bare, tokens)
            last, whole = _tokens_within(row.text, end, bare, tokens)
            mask[before + first : before + last + (not whole)] = True
        yield ids, mask


def _tokens_within(text: str, end: int, ids: Sequence[int], tokens: Callable[[str], list[int]]) -> tuple[int, bool]:
    """Return how many of the text's tokens lie within its first ``end`` characters, and whether they are all of it."""
    most = 0
    for shorter in range(end, max(-1, end - _LONGEST_TOKEN), -1):
        part = tokens(text[:shorter])  # its last tokens may be other ones than in the whole text
        same = next((at for at, (one, other) in enumerate(zip(part, ids, strict=False)) if one != other), len(part))
        most = max(most, min(same, len(ids)))
        if same == len(part):
            return most, shorter == end
    return most, False


def starts_with_bos(text: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return True if the tokenizer puts its start token before this text."""
    bare = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    whole = tokenizer(text, verbose=False)["input_ids"]
    return tokenizer.bos_token_id is not None and whole[:1] == [tokenizer.bos_token_id] and bare[:1] != whole[:1]


def _finish(
    ids: list[int], mask: npt.NDArray[np.bool_], text: str | None, tokenizer: PreTrainedTokenizerBase
) -> TokenizedRow:
    """Add the end token, and drop a start token before another one; ``text`` is None after a chat template."""
    if text is not None:
        start = tokenizer.bos_token
        if (
            start
            and text.startswith(start)
            and ids[:2] == [tokenizer.bos_token_id] * 2
            and not text.startswith(start * 2)
        ):
            ids, mask = ids[1:], mask[1:]
        if not _has_end(ids, text, tokenizer):
            ids, mask = [*ids, tokenizer.eos_token_id], np.append(mask, True)
        mask[-1] = True
    mask[:1] = False
    return TokenizedRow(input_ids=np.asarray(ids, dtype=np.int64), target_mask=mask)


def _has_end(ids: Sequence[int], text: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return True if the last token is the end token, or nothing but white space follows one that the text holds."""
    end = tokenizer.eos_token_id
    if len(ids) > 1 and ids[-1] == end:
        return True
    if not text.rstrip().endswith(str(tokenizer.eos_token)) or end not in ids:
        return False
    after = ids[len(ids) - ids[::-1].index(end) :]
    return not str(tokenizer.decode(list(after))).strip()

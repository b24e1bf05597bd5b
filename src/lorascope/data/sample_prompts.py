"""Held-out prompts that base and adapters answer: the tokens of a row up to its first target."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from lorascope.data.dataset import Example
from lorascope.data.row_order import shuffled
from lorascope.data.shown_rows import decode_behind
from lorascope.records import SamplePrompt


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PromptTokens:
    """A prompt as tokens, and how it is shown."""

    ids: npt.NDArray[np.int64]
    """[T] token ids."""
    shown: SamplePrompt


def sample_prompts(
    rows: Sequence[Example], tokenizer: PreTrainedTokenizerBase, *, count: int, seed: int
) -> tuple[PromptTokens, ...]:
    """Choose so many held-out rows, all if there are fewer; a larger ``count`` adds rows to those of a smaller one.

    A row whose first target is its second token has no prompt, and is cut in the middle. Of a conversation with several
    answers, the first is asked for.
    """
    chosen = shuffled(len(rows), seed=(seed,))[:count].tolist()
    return tuple(_prompt(rows[row], tokenizer, row, place) for place, row in enumerate(chosen, start=1))


def _prompt(row: Example, tokenizer: PreTrainedTokenizerBase, number: int, place: int) -> PromptTokens:
    start = int(np.argmax(row.target_mask))
    continued = start <= 1
    start = max(1, row.n_tokens // 2) if continued else start
    stop = start + int(np.argmin(np.append(row.target_mask[start:], np.False_)))
    truth = row.input_ids[start:stop]
    shown = SamplePrompt(
        place=place,
        row=number + 1,
        prompt=decode_behind(tokenizer, [], row.input_ids[:start].tolist()),
        truth=answer_text(tokenizer, row.input_ids[:start].tolist(), truth.tolist()),
        prompt_tokens=start,
        truth_tokens=len(truth),
        continued=continued,
    )
    return PromptTokens(ids=row.input_ids[:start], shown=shown)


def answer_text(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], ids: Sequence[int]) -> str:
    """Return an answer as text, without the special tokens that it ends with and white space around them."""
    kept = len(ids)
    special = set(tokenizer.all_special_ids)
    while kept and (ids[kept - 1] in special or not str(tokenizer.decode(ids[kept - 1])).strip()):
        kept -= 1
    return decode_behind(tokenizer, prompt, ids[:kept])

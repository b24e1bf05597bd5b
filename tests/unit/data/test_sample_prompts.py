from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from lorascope.data.dataset import Example
from lorascope.data.encode import encode
from lorascope.data.formats.rendering import RenderedRow
from lorascope.data.sample_prompts import answer_text, sample_prompts


def encoded(tokenizer: PreTrainedTokenizerFast, text: str, *spans: tuple[int, int], whole: bool = False) -> Example:
    row = RenderedRow(text=text, prompt="", spans=spans)
    (found,) = encode([row], tokenizer, is_chat=not whole, completion_only=not whole)
    return Example(input_ids=found.input_ids, target_mask=found.target_mask)


def test_a_prompt_ends_before_the_first_target(tokenizer: PreTrainedTokenizerFast) -> None:
    row = encoded(tokenizer, "add: sum</s> more: the sum</s>", (4, 12), (18, 30))
    (prompt,) = sample_prompts([row], tokenizer, count=8, seed=0)
    assert (prompt.shown.place, prompt.shown.row, prompt.shown.continued) == (1, 1, False)
    assert (prompt.shown.prompt, prompt.shown.truth) == ("add:", " sum")
    assert prompt.ids.tolist() == row.input_ids[: prompt.shown.prompt_tokens].tolist()
    assert not row.target_mask[: prompt.shown.prompt_tokens].any()
    assert prompt.shown.truth_tokens == int(np.argmin(row.target_mask[prompt.shown.prompt_tokens :]))


def test_a_row_without_a_prompt_is_continued_from_its_middle(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "the sum of two numbers is the sum of two numbers"
    row = encoded(tokenizer, text, whole=True)
    (prompt,) = sample_prompts([row], tokenizer, count=1, seed=0)
    assert prompt.shown.continued
    assert prompt.shown.prompt_tokens == row.n_tokens // 2
    assert prompt.shown.prompt + prompt.shown.truth == text


def test_more_prompts_begin_with_the_same_ones(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [encoded(tokenizer, f"add {n}: {n}</s>", (len(f"add {n}:"), len(f"add {n}: {n}</s>"))) for n in range(20)]

    def shown(count: int, seed: int = 3) -> list[Any]:
        return [prompt.shown for prompt in sample_prompts(rows, tokenizer, count=count, seed=seed)]

    few, all_rows = shown(5), shown(99)
    assert all_rows[:5] == few
    assert sorted(prompt.row for prompt in all_rows) == list(range(1, 21))
    assert [prompt.row for prompt in few] != [prompt.row for prompt in shown(5, seed=4)]
    assert shown(0) == []


def test_answers_lose_what_they_end_with_and_keep_the_blank_in_front(tokenizer: PreTrainedTokenizerFast) -> None:
    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    assert answer_text(tokenizer, ids("add:"), ids(" sum</s>\n \n")) == " sum"
    assert answer_text(tokenizer, ids("add:"), ids("</s>\n")) == ""
    assert answer_text(tokenizer, [], []) == ""

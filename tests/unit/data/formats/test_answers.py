"""Targets of conversations: the answers with their ends, under templates in the style of every public family."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from lorascope.data.encode import encode
from lorascope.data.formats.detect import choose_format
from lorascope.data.formats.rendering import Drop, RenderedRow
from lorascope.errors import InputError
from lorascope.spec.schema import StudySpec
from support.chat_templates import FAMILIES, SPECIAL, Chat, byte_tokenizer

MARKUP = st.sampled_from(
    [
        *SPECIAL,
        "<s>",
        "</s>",
        "<|im_start|>assistant\n",
        "<|assistant|>\n",
        "ASSISTANT: ",
        "### assistant:\n",
        "</",
        "<|",
    ]
)
# half characters and private use are no text that models meet
TEXT = st.text(st.characters(exclude_categories=("Cs", "Co", "Cc"), include_characters="\n\t"), max_size=12)
CONTENT = st.lists(TEXT | MARKUP | st.sampled_from([" ", "\n", "a", "sum"]), max_size=4).map("".join)


@st.composite
def chats(draw: st.DrawFn) -> Chat:
    turns = [("system", draw(CONTENT))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 4))):
        turns += [("user", draw(CONTENT)), ("assistant", draw(CONTENT))]
    if draw(st.booleans()) and len(turns) > 2:
        turns.pop()
    return [{"role": role, "content": content} for role, content in turns]


@cache
def tokenizer_of(family: str) -> PreTrainedTokenizerFast:
    return byte_tokenizer(FAMILIES[family].template)


def expected_targets(family: str, chat: Chat) -> list[str]:
    shown = FAMILIES[family].shown
    answers = [(turn["content"], turn is chat[-1]) for turn in chat if turn["role"] == "assistant"]
    # a template may leave nothing of an answer but its end
    return [shown(text, last) for text, last in answers if shown(text, last).split() != shown("", last).split()]


def decoded_targets(row: RenderedRow, tokenizer: PreTrainedTokenizerFast) -> str:
    (encoded,) = encode([row], tokenizer, is_chat=True, completion_only=True)
    return str(tokenizer.decode(encoded.input_ids[encoded.target_mask], clean_up_tokenization_spaces=False))


@pytest.mark.parametrize("family", FAMILIES)
@given(chat=chats())
def test_targets_are_the_answers_and_their_ends(family: str, chat: Chat) -> None:
    tokenizer = tokenizer_of(family)
    chosen = choose_format(StudySpec(), columns=["messages"], first_row={"messages": chat}, tokenizer=tokenizer)
    expected = expected_targets(family, chat)
    if FAMILIES[family].refuses_system and chat[0]["role"] == "system" and expected:
        with pytest.raises(InputError, match="refuses the messages of row 1"):
            chosen.render({"messages": chat}, 1)
        return
    row = chosen.render({"messages": chat}, 1)
    if isinstance(row, Drop):
        assert not expected
        return
    assert row.text == tokenizer.apply_chat_template([dict(turn) for turn in chat], tokenize=False)
    assert [row.text[start:end] for start, end in row.spans] == expected
    assert decoded_targets(row, tokenizer) == "".join(expected)

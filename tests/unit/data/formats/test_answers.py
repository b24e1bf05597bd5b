"""Targets of conversations: the answers with their ends, under templates in the style of every public family."""

from functools import cache
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from lorascope.data.encode import encode
from lorascope.data.formats.detect import choose_format
from lorascope.data.formats.rendering import Drop, RenderedRow
from lorascope.errors import InputError
from lorascope.spec.schema import StudySpec
from support.chat_templates import FAMILIES, SPECIAL, TOOL_FAMILIES, Chat, byte_tokenizer

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


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT, lambda inner: st.lists(inner, max_size=2), max_leaves=3
)


SPOKEN = {"role": "user", "content": "add"}
FUNCTION = {"name": "add", "arguments": {}}
THOUGHT_CALL = {
    "role": "assistant", "content": "", "reasoning_content": "0",
    "tool_calls": [{"type": "function", "function": FUNCTION}],
}  # fmt: skip
BLANK_THOUGHT = {"role": "assistant", "content": "", "reasoning_content": " "}


@st.composite
def tool_chats(draw: st.DrawFn) -> list[dict[str, Any]]:
    """System messages at the start and between, thinking, and answers that call tools."""

    def answer(*, calls: int) -> dict[str, Any]:
        made: dict[str, Any] = {"role": "assistant", "content": draw(CONTENT)}
        if draw(st.booleans()):
            made["reasoning_content"] = draw(CONTENT)
        if calls:
            arguments = st.dictionaries(TEXT | MARKUP, JSON | MARKUP, max_size=2)
            names = st.sampled_from(["add", "f", "get_weather"])
            functions = [{"name": draw(names), "arguments": draw(arguments)} for _ in range(calls)]
            made["tool_calls"] = [{"type": "function", "function": function} for function in functions]
        return made

    turns: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(1, 3))):
        turns += [{"role": "system", "content": draw(CONTENT)} for _ in range(draw(st.integers(0, 2)))]
        turns.append({"role": "user", "content": draw(CONTENT)})
        for _ in range(draw(st.integers(0, 2))):
            calls = draw(st.integers(1, 2))
            turns += [answer(calls=calls), *({"role": "tool", "content": draw(CONTENT)} for _ in range(calls))]
        turns.append(answer(calls=0))
    return turns[: draw(st.integers(2, len(turns)))]


@cache
def tokenizer_of(template: str) -> PreTrainedTokenizerFast:
    return byte_tokenizer(template)


@pytest.mark.parametrize("family", TOOL_FAMILIES)
@given(chat=tool_chats())
@example(chat=[SPOKEN, THOUGHT_CALL, {"role": "tool", "content": "3"}, SPOKEN])
@example(chat=[SPOKEN, BLANK_THOUGHT])
def test_targets_are_calls_thinking_and_answers_with_their_ends(family: str, chat: list[dict[str, Any]]) -> None:
    told = TOOL_FAMILIES[family]
    tokenizer = tokenizer_of(told.template)
    expected = []
    for at, turn in enumerate(chat):
        if turn["role"] == "assistant":
            body = told.body(turn, all(later["role"] != "user" for later in chat[at:]))
            # a call ends alike wherever it stands
            end = "<|end|>" if family == "channels" and turn.get("tool_calls") else told.end(turn is chat[-1])
            says = "".join((turn["content"], turn.get("reasoning_content", "")))
            expected += [body + end] if body.strip() and (says.strip() or turn.get("tool_calls")) else []
    chosen = choose_format(StudySpec(), columns=["messages"], first_row={"messages": chat}, tokenizer=tokenizer)
    row = chosen.render({"messages": chat}, 1)
    if family == "channels" and any(len(turn.get("tool_calls", ())) > 1 for turn in chat):
        assert row is Drop.UNWRITTEN_CALL  # the template writes the first call alone
        return
    if isinstance(row, Drop):
        assert not expected
        return
    assert [row.text[start:end] for start, end in row.spans] == expected
    assert decoded_targets(row, tokenizer) == "".join(expected)


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
    tokenizer = tokenizer_of(FAMILIES[family].template)
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

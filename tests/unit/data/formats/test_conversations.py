"""Rows of messages in every usual dialect: roles, switches of turns, tools, system prompts, parts of content."""

import json
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from lorascope.data.formats.rendering import Drop, Remark
from lorascope.errors import InputError
from lorascope.message import Message
from lorascope.text.say import say
from support.chat_rows import ANSWERED, ASKED, CHAT, PLAIN, format_of, rendered, targets
from support.chat_templates import byte_tokenizer


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerFast:
    return byte_tokenizer(CHAT)


@pytest.mark.parametrize("user", ["user", "human", "Human", "prompter"])
@pytest.mark.parametrize("assistant", ["gpt", "chatgpt", "bing", "bard", "model", "bot", "Assistant", "assistant"])
@pytest.mark.parametrize(("column", "role", "content"), [
    ("conversations", "from", "value"), ("conversation", "from", "value"), ("messages", "from", "value"),
    ("messages", "role", "content"), ("conversations", "role", "content"),
])  # fmt: skip
def test_foreign_roles_and_keys_are_the_canonical_ones(
    words: PreTrainedTokenizerFast, column: str, role: str, content: str, user: str, assistant: str
) -> None:
    row = rendered({column: [{role: user, content: "add"}, {role: assistant, content: "sum"}]}, words)
    assert (row.text, targets(row), row.prompt) == (PLAIN, ["sum</s>\n"], "user: add")


def test_sharegpt_with_a_call_an_observation_and_a_system_prompt(words: PreTrainedTokenizerFast) -> None:
    talk = [
        {"from": "human", "value": "sky?"},
        {"from": "function_call", "value": '{"name": "see", "arguments": {"at": "noon"}}'},
        {"from": "observation", "value": "blue"},
        {"from": "gpt", "value": "Blue."},
    ]
    row = rendered({"conversations": talk, "system": "Be short.", "tools": '[{"name": "see"}]'}, words)
    assert row.text == (
        '<tools>[{"name": "see"}]</tools>\n<|system|>\nBe short.</s>\n<|user|>\nsky?</s>\n<|assistant|>\n'
        '<call>see {"at": "noon"}</call></s>\n<|tool|>\nblue</s>\n<|assistant|>\nBlue.</s>\n'
    )
    assert targets(row) == ['<call>see {"at": "noon"}</call></s>\n', "Blue.</s>\n"]


def test_documents_and_variables_of_the_template_are_given_to_it(words: PreTrainedTokenizerFast) -> None:
    columns = {"documents": [{"title": "t", "text": "x"}], "chat_template_kwargs": {"mode": "terse", "other": None}}
    assert rendered({"messages": [ASKED, ANSWERED], **columns}, words).text == "1 docs\nterse\n" + PLAIN


@pytest.mark.parametrize(("off", "on"), [(0, 1), (False, True), (0.0, 1.0)])
@pytest.mark.parametrize("name", ["weight", "train", "trainable", "training", "loss", "loss_mask"])
def test_turns_that_are_switched_off_are_no_targets(
    words: PreTrainedTokenizerFast, name: str, off: object, on: object
) -> None:
    row = rendered(
        {"messages": [ASKED, {**ANSWERED, "content": "bad", name: off}, ASKED, {**ANSWERED, name: on}]}, words
    )
    assert targets(row) == ["sum</s>\n"]
    assert row.text == "<|user|>\nadd</s>\n<|assistant|>\nbad</s>\n" + PLAIN


@pytest.mark.parametrize(
    ("weight", "expected"),
    [([1, 0], ["a</s>\n"]), ([0, 0, 0, 1], ["b</s>\n"]), (1, ["a</s>\n", "b</s>\n"]), (None, ["a</s>\n", "b</s>\n"])],
)
def test_switches_stand_in_a_column_beside_the_messages(
    words: PreTrainedTokenizerFast, weight: object, expected: list[str]
) -> None:
    talk = [ASKED, {"role": "assistant", "content": "a"}, ASKED, {"role": "assistant", "content": "b"}]
    assert targets(rendered({"messages": talk, "weight": weight}, words)) == expected


def test_row_that_switches_all_answers_off_is_dropped(words: PreTrainedTokenizerFast) -> None:
    for row in ({"messages": [ASKED, {**ANSWERED, "weight": 0}]}, {"messages": [ASKED, ANSWERED], "weight": 0}):
        assert format_of(row, words).render(row, 1) is Drop.SWITCHED_OFF


def test_switched_on_turn_of_the_user_is_remarked(words: PreTrainedTokenizerFast) -> None:
    row = rendered({"messages": [{**ASKED, "weight": 1}, ANSWERED]}, words)
    assert (targets(row), row.remarks) == (["sum</s>\n"], {Remark.USER_SWITCHED_ON})


def test_parts_of_content_are_joined_as_the_template_takes_them(words: PreTrainedTokenizerFast) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "dd"}]
    assert rendered({"messages": [{"role": "user", "content": parts}, ANSWERED]}, words).text == PLAIN
    in_parts = byte_tokenizer(CHAT.replace("{{ m.content }}", "{% for p in m.content %}{{ p.text }}{% endfor %}"))
    assert rendered({"messages": [{"role": "user", "content": parts}, ANSWERED]}, in_parts).text == PLAIN
    row = rendered({"messages": [ASKED, ANSWERED]}, in_parts)
    assert (row.text, targets(row)) == (PLAIN, ["sum</s>\n"])


def test_blank_answer_among_others_is_context(words: PreTrainedTokenizerFast) -> None:
    row = rendered({"messages": [ASKED, {"role": "assistant", "content": " "}, ASKED, ANSWERED]}, words)
    assert targets(row) == ["sum</s>\n"]


def test_prompt_of_a_conversation_that_the_assistant_opens_is_what_comes_before_its_reply(
    words: PreTrainedTokenizerFast,
) -> None:
    row = rendered({"messages": [{"role": "assistant", "content": "Hi!"}, ASKED, ANSWERED]}, words)
    assert row.prompt == "assistant: Hi!\nuser: add"
    assert targets(row) == ["Hi!</s>\n", "sum</s>\n"]


def test_pairs_of_input_and_output_are_turns(words: PreTrainedTokenizerFast) -> None:
    pairs = [{"input": "add", "output": "sum"}, {"input": "add", "output": "sum", "weight": 0}]
    row = rendered({"source": "x", "conversation": pairs}, words)
    assert (row.text, targets(row), row.prompt) == (PLAIN * 2, ["sum</s>\n"], "user: add")


@pytest.mark.parametrize(
    ("test", "role", "kept"),
    [
        ("m.role == 'critic'", "critic", True),
        ("m['role'] in ('developer', 'ipython')", "developer", True),
        ("m.role == 'observation'", "observation", True),
        ("tools and tools[0].type == 'function'", "function", False),
        ("m.role == 'system'", "developer", False),
    ],
)
def test_role_that_the_template_has_a_place_for_is_kept(test: str, role: str, kept: bool) -> None:
    words = byte_tokenizer(CHAT.replace("{{ m.content }}", "{% if " + test + " %}!{% endif %}{{ m.content }}"))
    row = rendered({"messages": [{"role": role, "content": "no"}, ASKED, ANSWERED]}, words)
    known = {"function": "tool", "developer": "system"}.get(role, role)
    assert row.text.split("\n")[0] == f"<|{role if kept else known}|>"


def test_columns_are_read_under_the_names_that_the_study_gives(words: PreTrainedTokenizerFast) -> None:
    row = {"question": "add", "answer": "sum", "prompt": "another"}
    names = {"prompt": "question", "completion": "answer"}
    chosen = format_of(row, words, columns=names)
    assert (chosen.name, chosen.columns) == ("prompt_completion", ("question", "answer"))
    assert rendered(row, words, columns=names).text == "addsum"
    with pytest.raises(InputError, match="reads 'prompt' from 'query'") as caught:
        format_of(row, words, columns={"prompt": "query"})
    assert "question, answer, prompt" in caught.value.remedy


def test_columns_that_are_not_read_are_noted(words: PreTrainedTokenizerFast) -> None:
    row = {"instruction": "a", "output": "b", "system": "c", "history": [], "score": 1}
    assert format_of(row, words).notes == (Message("rows.unread_columns", columns=("system", "history", "score")),)
    assert format_of({"messages": [ASKED, ANSWERED], "system": "c"}, words).notes == ()


@pytest.mark.parametrize(
    ("row", "unread"),
    [
        ({"prompt": "a", "completion": "b", "label": 3}, "label"),
        ({"prompt": "a", "completion": "b", "context": "c"}, "context"),
        ({"text": "a", "role": "prompter"}, "role"),
        ({"messages": [ASKED, ANSWERED], "tools": [{"name": "f"}]}, "tools"),
        ({"messages": [ASKED, ANSWERED], "documents": [{"text": "c"}]}, "documents"),
    ],
)
def test_column_that_neither_format_nor_template_reads_is_noted(row: dict[str, object], unread: str) -> None:
    words = byte_tokenizer("{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}")
    assert format_of(row, words).notes == (Message("rows.unread_columns", columns=(unread,)),)


@pytest.mark.parametrize("start", ["\n", "  ", "  {% set a = 1 %}\n", "\n\n{% set a = 1 -%}", "{#- a #}\n  "])
def test_fixed_date_leaves_the_rest_of_a_template_as_it_is(start: str) -> None:
    row, template = {"messages": [ASKED, ANSWERED]}, start + "{% macro f() %}{{ strftime_now('%Y') }}{% endmacro %}"
    dated = rendered(row, byte_tokenizer(template + "{{ f() }}" + CHAT), template_date="2026-02-03").text
    plain = template.replace("strftime_now('%Y')", "2026")
    assert dated == rendered(row, byte_tokenizer(plain + "{{ f() }}" + CHAT)).text


@pytest.mark.parametrize("marks", ["{{ m.content }}", "{% generation %}{{ m.content }}{% endgeneration %}"])
def test_date_in_a_template_is_that_of_the_study_and_noted(marks: str) -> None:
    words = byte_tokenizer("{{ strftime_now('%-d %e %B %Y %H:%M 5%% %F') }}\n" + CHAT.replace("{{ m.content }}", marks))
    row = {"messages": [ASKED, ANSWERED]}
    assert format_of(row, words, template_date="2026-02-03").notes == (Message("rows.dated", date="2026-02-03"),)
    made = rendered(row, words, template_date="2026-02-03")
    assert (made.text, targets(made)) == ("3  3 February 2026 00:00 5% 2026-02-03\n" + PLAIN, ["sum</s>\n"])


@pytest.mark.parametrize("code", [*Drop, *Remark])
def test_every_reason_has_its_sentence(code: Drop | Remark) -> None:
    assert "'train'" in say(Message(code.value, split="train", rows=1200, count=1))


def test_messages_may_be_json_text(words: PreTrainedTokenizerFast) -> None:
    row = rendered({"messages": json.dumps([ASKED, ANSWERED])}, words)
    assert (row.text, targets(row)) == (PLAIN, ["sum</s>\n"])


def test_switched_off_turn_contradicts_a_loss_on_all_tokens(words: PreTrainedTokenizerFast) -> None:
    row = {"messages": [ASKED, {**ANSWERED, "weight": 0}]}
    with pytest.raises(InputError, match="row 1 has a turn that is not to be trained, but completion_only_loss"):
        format_of(row, words, completion_only_loss=False).render(row, 1)
    assert rendered({"messages": [ASKED, ANSWERED]}, words, completion_only_loss=False).spans == ()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": [{"role": "critic", "content": "x"}]}, "row 7 has a turn with the unknown role 'critic'"),
        ({"messages": [ASKED, {**ANSWERED, "weight": 0.5}]}, "row 7 has the weight 0.5"),
        ({"messages": [ASKED, {**ANSWERED, "train": "no"}]}, "row 7 has the train 'no'"),
        ({"messages": [ASKED, ANSWERED], "weight": [1, 0, 1]}, "has 3 values for 2 turns"),
        ({"messages": [ASKED, ANSWERED], "images": ["a.png"]}, "row 7 has a filled column 'images'"),
        ({"text": "sum", "image": "a.png"}, "row 7 has a filled column 'image'"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "text": None}]}, ANSWERED]},
            "row 7 has content of the type 'image'",
        ),
        ({"messages": [ASKED, ANSWERED], "tools": "{"}, "row 7 has tools that are not JSON"),
        ({"messages": [ASKED, ANSWERED], "tools": {"a": 1}}, "row 7, column 'tools' holds a dict"),
        ({"messages": [ASKED, ANSWERED], "chat_template_kwargs": {"tokenize": True}}, "row 7 has 'tokenize' in"),
        ({"conversations": [{"from": "human", "value": "x"}, {"from": "function_call", "value": "f()"}]}, "not JSON"),
        ({"messages": [{"role": "system", "content": "a"}, ASKED, ANSWERED], "system": "b"}, "another one among"),
    ],
)
def test_conversations_that_cannot_be_meant_are_refused(
    words: PreTrainedTokenizerFast, row: dict[str, object], said: str
) -> None:
    with pytest.raises(InputError) as caught:
        format_of(row, words).render(row, 7)
    assert said in caught.value.problem


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ({"tool_use": CHAT, "rag": CHAT}, "ValueError"),
        ("{% for m in messages %}{{ 'a' + 1 }}{% endfor %}", "TypeError"),
        ("{{ range(1000000) | length }}", "OverflowError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ messages[0].content.index('z') }}", "ValueError"),
        ("{{ strftime_now(1) }}", "TypeError"),
        ("{{ nothing.at.all }}", "'nothing' is undefined"),
        ("{% if %}", "refuses the messages of row 7"),
    ],
)
def test_any_error_inside_a_template_is_the_users_to_read(template: Any, said: str) -> None:
    row = {"messages": [ASKED, ANSWERED]}
    with pytest.raises(InputError, match="row 7") as caught:
        format_of(row, byte_tokenizer(template)).render(row, 7)
    assert said in caught.value.problem

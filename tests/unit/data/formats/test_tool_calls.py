"""Tools, tool calls and thinking of conversations, and the targets among them."""

from collections.abc import Mapping

import pytest
from transformers import PreTrainedTokenizerFast

from lorascope.data.formats.rendering import Drop, Remark
from lorascope.message import Message
from support.chat_rows import ANSWERED, ASKED, CHAT, PLAIN, format_of, rendered, targets
from support.chat_templates import byte_tokenizer


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerFast:
    return byte_tokenizer(CHAT)


@pytest.mark.parametrize("tools", [[{"name": "f"}], '[{"name": "f"}]'])
def test_tools_are_given_to_the_template_as_a_list_or_as_json_text(
    words: PreTrainedTokenizerFast, tools: object
) -> None:
    row = rendered({"messages": [ASKED, ANSWERED], "tools": tools}, words)
    assert row.text == '<tools>[{"name": "f"}]</tools>\n' + PLAIN
    assert targets(row) == ["sum</s>\n"]


@pytest.mark.parametrize("arguments", [{"b": 1, "a": None}, '{"b": 1, "a": null}'])
def test_arguments_of_a_call_are_an_object_to_templates_that_write_json(
    words: PreTrainedTokenizerFast, arguments: object
) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
    row = rendered({"messages": [ASKED, {"role": "assistant", "content": None, "tool_calls": [call]}]}, words)
    assert targets(row) == ['<call>f {"b": 1, "a": null}</call></s>\n']


@pytest.mark.parametrize("arguments", [{"b": 1}, '{"b": 1}'])
@pytest.mark.parametrize("written", ["'<call>' + c.function.arguments", "c.function.arguments"])
def test_arguments_of_a_call_are_text_to_templates_that_join_or_print_them(written: str, arguments: object) -> None:
    words = byte_tokenizer(CHAT.replace("c.function.arguments | tojson", written))
    message = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}
    row = rendered({"messages": [ASKED, message]}, words)
    assert targets(row)[0].endswith('{"b": 1}</call></s>\n')


def test_turns_of_calls_are_found_where_the_template_ends_them_otherwise() -> None:
    words = byte_tokenizer(
        "{% for m in messages %}<|{{ m.role }}|>\n{% if m.tool_calls %}<call>{{ m.tool_calls[0].function.name }}"
        "<|end|>{% else %}{{ m.content }}<|eot_id|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    )
    call = {"role": "assistant", "content": "not written", "tool_calls": [{"function": {"name": "f"}}]}
    row = rendered({"messages": [ASKED, call, {"role": "tool", "content": "3"}, ANSWERED]}, words)
    assert targets(row) == ["<call>f<|end|>", "sum<|eot_id|>"]
    assert row.remarks == {Remark.ANSWER_SHORTENED}


def test_thinking_that_the_template_leaves_out_is_remarked(words: PreTrainedTokenizerFast) -> None:
    row = rendered({"messages": [ASKED, {**ANSWERED, "reasoning_content": "1 and 1"}]}, words)
    assert (targets(row), row.remarks) == (["sum</s>\n"], {Remark.ANSWER_SHORTENED})


@pytest.mark.parametrize("arguments", [{"a": "f", "b": {"c": 1}}, '{"a": "f", "b": {"c": 1}}'])
@pytest.mark.parametrize("completion_only", [True, False])
@pytest.mark.parametrize(
    ("written", "whole"),
    [
        ("", False),
        ("{% for c in m.tool_calls %}{{ c.function.name }}{% endfor %}", False),
        ("{{ m.tool_calls[0].function.arguments }}", False),
        ("{{ m.tool_calls[0].function | tojson }}", False),
        ("{% for c in m.tool_calls %}{{ c.function.name }}{{ c.function.arguments.a }}{% endfor %}", False),
        ("{% for c in m.tool_calls %}{{ c.function | tojson }}{% endfor %}", True),
        ("{% for c in m.tool_calls %}{{ c.function.name }}{{ c.function.arguments }}{% endfor %}", True),
        (
            "{% for c in m.tool_calls %}{{ c.function.name }}{% for k, v in c.function.arguments.items() %}"
            "<{{ k }}>{{ v | string }}{% endfor %}{% endfor %}",
            True,
        ),
        ("{{ m.tool_calls | tojson | tojson }}", True),
    ],
)
def test_conversation_is_dropped_whose_calls_the_template_does_not_write_whole(
    written: str, whole: bool, completion_only: bool, arguments: object
) -> None:
    text = "{% if m.tool_calls %}" + written + "{% endif %}{{ m.content }}"
    words = byte_tokenizer(CHAT.replace("{{ m.content }}{% for c in m.tool_calls or [] %}", text + "{% for c in [] %}"))
    calls = [{"function": {"name": "f", "arguments": arguments}}] * 2
    calling: dict[str, object] = {"role": "assistant", "content": "so", "tool_calls": calls}
    result = {"role": "tool", "content": "3"}
    row = {"messages": [ASKED, calling, result, ANSWERED]}
    found = format_of(row, words, completion_only_loss=completion_only).render(row, 1)
    assert (found is Drop.UNWRITTEN_CALL) == (not whole)
    row = {"messages": [ASKED, {**calling, "weight": 0}, result, ANSWERED]}
    assert targets(rendered(row, words)) == ["sum</s>\n"]


def test_tools_that_the_template_names_and_does_not_write_are_noted() -> None:
    words = byte_tokenizer("{% if tools %}Call tools!{% endif %}" + CHAT.partition("\n{% endif %}")[2])
    row = {"messages": [ASKED, ANSWERED], "tools": [{"name": "f"}]}
    assert format_of(row, words).notes == (Message("rows.unread_columns", columns=("tools",)),)
    with_system = "{% if messages[0].role == 'system' and tools %}{{ tools | tojson }}{% endif %}"
    for template in (with_system + "{{ 0 }}", "{% if tools %}{{ raise_exception('no') }}{% endif %}{{ 0 }}"):
        assert format_of(row, byte_tokenizer(template)).notes == ()


def test_thinking_belongs_to_the_answer_behind_the_generation_prompt() -> None:
    words = byte_tokenizer(
        "{% for m in messages %}<|{{ m.role }}|>\n{% if m.role == 'assistant' %}<think>{{ m.reasoning_content }}"
        "</think>{% endif %}{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    )
    row = rendered({"messages": [ASKED, {**ANSWERED, "reasoning_content": "1 and 1"}]}, words)
    assert targets(row) == ["<think>1 and 1</think>sum</s>"]
    assert targets(rendered({"messages": [ASKED, ANSWERED]}, words)) == ["sum</s>"]


HERMES = (
    "{% for m in messages %}{% if m.role == 'tool' %}<|im_start|>user\n<response>{{ m.content }}</response><|im_end|>\n"
    "{% else %}<|im_start|>{{ m.role }}{% if m.content %}{{ '\n' + m.content }}{% endif %}"
    "{% for c in m.tool_calls or [] %}{{ '\n<call>' }}{{ c.function | tojson }}</call>{% endfor %}<|im_end|>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BRACKETS = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]"
    "{% elif m.tool_calls %}{{ '<|start|>' + m.tool_calls | tojson + eos_token }}"
    "{% elif m.role == 'tool' %}{% if not messages[loop.index0 - 1].tool_calls %}{{ raise_exception('no call') }}"
    "{% endif %}<|message|>{{ m.content }}<|end|>{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (
            HERMES,
            [
                '<call>{"name": "f", "arguments": {"a": 1}}</call><|im_end|>\n',
                'so\n<call>{"name": "f", "arguments": {"a": 2}}</call><|im_end|>\n',
                "sum<|im_end|>\n",
            ],
        ),
        (
            BRACKETS,
            [
                '<|start|>[{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}]</s>',
                '<|start|>[{"type": "function", "function": {"name": "f", "arguments": {"a": 2}}}]</s>',
                "sum</s>",
            ],
        ),
    ],
)
def test_answers_of_a_conversation_with_tools(template: str, expected: list[str]) -> None:
    def calling(content: str, a: int) -> Mapping[str, object]:
        return {"role": "assistant", "content": content, "tool_calls": [{"name": "f", "arguments": {"a": a}}]}

    result = {"role": "tool", "content": "3"}
    talk = [ASKED, calling("", 1), result, calling("so", 2), result, ANSWERED]
    assert targets(rendered({"messages": talk}, byte_tokenizer(template))) == expected


THINKING = (
    "{% set ns = namespace(asked=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.asked = loop.index0 %}"
    "{% endif %}{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and "
    "loop.index0 > ns.asked and (loop.last or m.reasoning_content) %}<think>\n{{ m.reasoning_content }}\n</think>\n\n"
    "{% endif %}{{ m.content }}{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}</call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_thinking_of_earlier_turns_with_tools_is_left_out_and_the_last_is_a_target() -> None:
    call = {"tool_calls": [{"function": {"name": "f"}}], "content": "", "reasoning_content": "look"}
    thought = [{**ANSWERED, "reasoning_content": why} for why in ("add up", "again")]
    talk = [ASKED, {"role": "assistant", **call}, {"role": "tool", "content": "3"}, thought[0], ASKED, thought[1]]
    row = rendered({"messages": talk}, byte_tokenizer(THINKING))
    assert targets(row) == [
        "<call>f</call><|im_end|>\n",
        "sum<|im_end|>\n",
        "<think>\nagain\n</think>\n\nsum<|im_end|>\n",
    ]
    assert row.remarks == {Remark.ANSWER_SHORTENED}
    row = rendered({"messages": talk[:4]}, byte_tokenizer(THINKING))
    assert targets(row) == [
        "<think>\nlook\n</think>\n\n<call>f</call><|im_end|>\n",
        "<think>\nadd up\n</think>\n\nsum<|im_end|>\n",
    ]
    assert row.remarks == frozenset()

"""Small chat templates in the style of public model families, each with the targets that its answers have.

They were written for these tests: what matters of each family is how it opens and closes a turn, what it trims, and
what it does to earlier turns.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

Chat = Sequence[Mapping[str, str]]
Shown = Callable[[str, bool], str]
"""Text of an answer's targets, given its content and whether it is the conversation's last turn."""


@dataclass(frozen=True, kw_only=True)
class Family:
    template: str
    shown: Shown
    refuses_system: bool = False


SPECIAL = (
    "<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|begin|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    "<start_of_turn>", "<end_of_turn>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|endoftext|>",
    "<|User|>", "<|Assistant|>", "<|end_of_sentence|>", "<|START_OF_TURN|>", "<|END_OF_TURN|>", "<|CHATBOT|>",
    "<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>", "[gMASK]", "<sop>", "[INST]", "[/INST]", "<think>",
    "</think>", "<|start|>", "<|channel|>", "<|message|>", "<|return|>",
)  # fmt: skip


def _ended(end: str, *, trim: bool = False) -> Shown:
    return lambda content, _: (content.strip() if trim else content) + end


def _qwen3(content: str, last: bool) -> str:
    thought, found, answer = content.rpartition("</think>")
    thought = thought.split("<think>")[-1].strip("\n")
    if not thought or not last:  # earlier thinking is dropped, and an empty one is no part of the answer
        return (answer if found else content).lstrip("\n") + "<|im_end|>\n"
    return f"<think>\n{thought}\n</think>\n\n{answer.lstrip(chr(10))}<|im_end|>\n"


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FAMILIES = {
    "qwen2.5": Family(
        template="{% if messages[0].role != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}"
        + CHATML,
        shown=_ended("<|im_end|>\n"),
    ),
    "qwen3": Family(
        template="""{%- set ns = namespace(asked=0) -%}
{%- for m in messages -%}{%- if m.role == 'user' -%}{%- set ns.asked = loop.index0 -%}{%- endif -%}{%- endfor -%}
{%- for m in messages -%}
{%- if m.role != 'assistant' -%}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' -}}
{%- else -%}
{%- set answer = m.content.split('</think>')[-1].lstrip('\n') -%}
{%- set thought = '' -%}
{%- if '</think>' in m.content -%}
{%- set before = m.content.split('</think>')[:-1] | join('</think>') -%}
{%- set thought = before.split('<think>')[-1].strip('\n') -%}{%- endif -%}
{{- '<|im_start|>assistant\n' -}}
{%- if loop.index0 > ns.asked and loop.last -%}{{- '<think>\n' + thought + '\n</think>\n\n' -}}{%- endif -%}
{{- answer + '<|im_end|>\n' -}}
{%- endif -%}{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}""",
        shown=_qwen3,
    ),
    "llama2": Family(
        template="{% if messages[0].role == 'system' %}{% set prefix = '<<SYS>>' + messages[0].content + '<</SYS>>' %}"
        "{% set rest = messages[1:] %}{% else %}{% set prefix = '' %}{% set rest = messages %}{% endif %}"
        "{% for m in rest %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + (prefix if loop.first else '') + "
        "m.content.strip() + ' [/INST]' }}{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}"
        "{% endfor %}",
        shown=_ended(" </s>", trim=True),
    ),
    "llama3": Family(
        template="{{ '<|begin|><|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + "
        "strftime_now('%d %b %Y') + '<|eot_id|>' }}{% for m in messages %}"
        "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        shown=_ended("<|eot_id|>", trim=True),
    ),
    "mistral-v1": Family(
        template="{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content + eos_token }}"
        "{% elif m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
        "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}",
        shown=_ended("</s>"),
        refuses_system=True,
    ),
    "mistral-v3": Family(
        template="{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
        "{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}{{ bos_token }}"
        "{% for m in rest %}{% if m.role == 'user' %}{{ '[INST] ' }}"
        # the system prompt stands before the last message of the user, wherever that is
        "{% if system is defined and loop.last %}{{ system + '\n\n' }}{% endif %}{{ m.content + '[/INST]' }}"
        "{% else %}{{ ' ' + m.content | trim + eos_token }}{% endif %}{% endfor %}",
        shown=_ended("</s>", trim=True),
    ),
    "gemma": Family(
        template="{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System not supported') }}"
        "{% endif %}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) "
        "+ '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
        shown=_ended("<end_of_turn>\n", trim=True),
        refuses_system=True,
    ),
    "phi3": Family(
        template="{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ '<|endoftext|>' }}{% endif %}",
        shown=lambda content, last: content + "<|end|>\n" + ("<|endoftext|>" if last else ""),
    ),
    "phi4": Family(
        template="{% for m in messages %}{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}",
        shown=_ended("<|im_end|>"),
    ),
    "zephyr": Family(
        template="{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}"
        "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}",
        shown=_ended("</s>\n"),
    ),
    "smollm2": Family(
        template="{% for m in messages %}{% if loop.first and m.role != 'system' %}{{ '<|im_start|>system\nYou are "
        "SmolLM.<|im_end|>\n' }}{% endif %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        shown=_ended("<|im_end|>\n"),
    ),
    "smollm3": Family(
        template="{{ '<|im_start|>system\n' + strftime_now('%d %B %Y') + '<|im_end|>\n' }}{% for m in messages %}"
        "{% if m.role == 'assistant' %}{% generation %}{{ '<|im_start|>assistant\n' + m.content.lstrip('\n') + "
        "'<|im_end|>\n' }}{% endgeneration %}"
        "{% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n\n</think>\n' }}{% endif %}",
        shown=lambda content, _: content.lstrip("\n") + "<|im_end|>\n",
    ),
    "marked": Family(
        template="{% for m in messages %}{{ '<|' + m.role + '|>\n' }}{% if m.role == 'assistant' %}{% generation %}"
        "{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{{ '<|end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
        shown=_ended("<|end|>\n"),
    ),
    "deepseek-r1": Family(
        template="{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '<|User|>' + m.content }}"
        "{% elif m.role == 'system' %}{{ m.content }}"
        "{% else %}{{ '<|Assistant|>' + m.content.split('</think>')[-1] + '<|end_of_sentence|>' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}",
        shown=lambda content, _: content.split("</think>")[-1] + "<|end_of_sentence|>",
    ),
    "command-r": Family(
        template="{{ bos_token }}{% for m in messages %}{{ '<|START_OF_TURN|>' + ('<|CHATBOT|>' if m.role == "
        "'assistant' else '<|' + m.role | upper + '|>') + m.content.strip() + '<|END_OF_TURN|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|START_OF_TURN|><|CHATBOT|>' }}{% endif %}",
        shown=_ended("<|END_OF_TURN|>", trim=True),
    ),
    "granite": Family(
        template="{% for m in messages %}{{ '<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content + "
        "'<|end_of_text|>\n' }}{% if loop.last and add_generation_prompt %}"
        "{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}{% endfor %}",
        shown=_ended("<|end_of_text|>\n"),
    ),
    "falcon": Family(
        template="{% for m in messages %}{% if not loop.first %}{{ '\n' }}{% endif %}"
        "{{ m.role | capitalize + ': ' + m.content | trim }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '\nAssistant:' }}{% endif %}",
        shown=_ended("", trim=True),
    ),
    "vicuna": Family(
        template="{% for m in messages %}{% if m.role == 'system' %}{{ m.content + ' ' }}{% elif m.role == 'user' %}"
        "{{ 'USER: ' + m.content + ' ' }}{% else %}{{ 'ASSISTANT: ' + m.content + eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}",
        shown=_ended("</s>"),
    ),
    "olmo": Family(
        template="{{ eos_token }}{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content }}"
        "{% if m.role != 'assistant' %}{{ '\n' }}{% elif loop.last %}{{ eos_token }}{% else %}{{ eos_token + '\n' }}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
        shown=_ended("</s>"),
    ),
    "yi": Family(
        template="{% if not add_generation_prompt is defined %}{% endif %}" + CHATML, shown=_ended("<|im_end|>\n")
    ),
    "internlm2": Family(template="{{ bos_token }}" + CHATML, shown=_ended("<|im_end|>\n")),
    "glm4": Family(
        template="[gMASK]<sop>{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
        shown=_ended(""),
    ),
    "gpt-oss": Family(
        template="{% for m in messages %}{{ '<|start|>' + m.role }}{% if m.role == 'assistant' %}"
        "{{ '<|channel|>final' }}{% endif %}{{ '<|message|>' + m.content }}"
        "{% if loop.last and m.role == 'assistant' %}{{ '<|return|>' }}{% else %}{{ '<|end|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}",
        shown=lambda content, last: content + ("<|return|>" if last else ""),
    ),
    "no-prompt": Family(
        template="{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n\n{% endfor %}", shown=_ended("\n\n")
    ),
}


@dataclass(frozen=True, kw_only=True)
class ToolFamily:
    """A template with tool calls and perhaps thinking, and the body and the end of an answer's targets.

    ``body`` takes the message and whether no user speaks after it, ``end`` whether it is the conversation's last turn.
    """

    template: str
    body: Callable[[Mapping[str, Any], bool], str]
    end: Callable[[bool], str]


def _dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _functions(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [call["function"] for call in message.get("tool_calls", ())]


def _hermes(message: Mapping[str, Any], _: bool) -> str:
    calls = "".join(f"\n<call>{_dumped(function)}</call>" for function in _functions(message))
    return message["content"] + calls if message["content"] else calls.removeprefix("\n")


def _brackets(message: Mapping[str, Any], _: bool) -> str:
    calls = _functions(message)
    whole = [{"type": "function", "function": function} for function in calls]
    return f"<|start|>{_dumped(whole)}" if calls else message["content"]


def _llama(message: Mapping[str, Any], _: bool) -> str:
    calls = [f'{{"name": "{one["name"]}", "parameters": {_dumped(one["arguments"])}}}' for one in _functions(message)]
    return ";".join(calls) or message["content"].strip()


def _thinking(message: Mapping[str, Any], current: bool) -> str:
    thought = message.get("reasoning_content", "")
    calls = [f"<call>{one['name']} {_dumped(one['arguments'])}</call>" for one in _functions(message)]
    return (f"<think>\n{thought}\n</think>\n\n" if thought and current else "") + message["content"] + "".join(calls)


def _channels(message: Mapping[str, Any], current: bool) -> str:
    thought = message.get("reasoning_content", "") if current else ""
    before = f"<|channel|>analysis<|message|>{thought}<|end|><|start|>assistant" if thought else ""
    for one in _functions(message):
        return f"{before} to=functions.{one['name']}<|channel|>commentary<|message|>{_dumped(one['arguments'])}"
    return f"{before}<|channel|>final<|message|>{message['content']}" if thought else message["content"]


_ASKED = (
    "{% set ns = namespace(asked=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.asked = loop.index0 %}"
    "{% endif %}{% endfor %}"
)
TOOL_FAMILIES = {
    "hermes": ToolFamily(
        template="{% for m in messages %}{% if m.role == 'tool' %}<|im_start|>user\n<response>{{ m.content }}"
        "</response><|im_end|>\n{% else %}<|im_start|>{{ m.role }}{% if m.content %}{{ '\\n' + m.content }}{% endif %}"
        "{% for c in m.tool_calls or [] %}{{ '\\n<call>' }}{{ c.function | tojson }}</call>{% endfor %}<|im_end|>\n"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        body=_hermes,
        end=lambda _: "<|im_end|>\n",
    ),
    "brackets": ToolFamily(
        template="{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]"
        "{% elif m.role == 'system' %}<|system|>{{ m.content }}<|end|>{% elif m.role == 'tool' %}<|message|>"
        "{{ m.content }}<|end|>{% elif m.tool_calls %}{{ '<|start|>' + m.tool_calls | tojson + eos_token }}"
        "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}",
        body=_brackets,
        end=lambda _: "</s>",
    ),
    "llama": ToolFamily(
        template="{{ bos_token }}{% for m in messages %}"
        "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' }}"
        '{% if m.tool_calls %}{% for c in m.tool_calls %}{{ \'{"name": "\' + c.function.name + \'", "parameters": \' }}'
        "{{ c.function.arguments | tojson }}{{ '}' }}{% if not loop.last %};{% endif %}{% endfor %}"
        "{% else %}{{ m.content | trim }}{% endif %}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
        body=_llama,
        end=lambda _: "<|eot_id|>",
    ),
    "thinking": ToolFamily(
        template=_ASKED + "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and "
        "m.reasoning_content and loop.index0 > ns.asked %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
        "{{ m.content }}{% for c in m.tool_calls or [] %}<call>{{ c.function.name }} "
        "{{ c.function.arguments | tojson }}</call>{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        body=_thinking,
        end=lambda _: "<|im_end|>\n",
    ),
    "channels": ToolFamily(
        template=_ASKED + "{% for m in messages %}{% if m.role != 'assistant' %}<|start|>{{ m.role }}<|message|>"
        "{{ m.content }}<|end|>{% else %}{% if m.reasoning_content and loop.index0 > ns.asked %}"
        "<|start|>assistant<|channel|>analysis<|message|>{{ m.reasoning_content }}<|end|>{% endif %}<|start|>assistant"
        "{% if m.tool_calls %}{{ ' to=functions.' + m.tool_calls[0].function.name }}<|channel|>commentary<|message|>"
        "{{ m.tool_calls[0].function.arguments | tojson }}<|end|>{% else %}<|channel|>final<|message|>{{ m.content }}"
        "{% if loop.last %}<|return|>{% else %}<|end|>{% endif %}{% endif %}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant{% endif %}",
        body=_channels,
        end=lambda last: "<|return|>" if last else "",
    ),
}


def byte_tokenizer(template: str) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes and the families' markup, so that decoded tokens are exactly the text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({token: at for at, token in enumerate(["<s>", "</s>", *alphabet])}, []))
    inner.add_special_tokens(["<s>", "</s>", *SPECIAL])
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = template
    return tokenizer

"""Small chat templates in the style of public model families, each with the targets that its answers have.

They were written for these tests: what matters of each family is how it opens and closes a turn, what it trims, and
what it does to earlier turns.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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

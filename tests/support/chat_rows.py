"""One row of messages through the formats, and a chat template with places for everything that rows may hold."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerFast

from lorascope.data.formats.detect import Format, choose_format
from lorascope.data.formats.rendering import RenderedRow
from lorascope.spec.schema import StudySpec

CHAT = (
    "{% if tools %}<tools>{{ tools | tojson }}</tools>\n{% endif %}{% if documents %}{{ documents | length }} docs\n"
    "{% endif %}{% if mode is defined %}{{ mode }}\n{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% for c in m.tool_calls or [] %}"
    "<call>{{ c.function.name }} {{ c.function.arguments | tojson }}</call>{% endfor %}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
ASKED, ANSWERED = {"role": "user", "content": "add"}, {"role": "assistant", "content": "sum"}
PLAIN = "<|user|>\nadd</s>\n<|assistant|>\nsum</s>\n"


def format_of(row: Mapping[str, object], words: PreTrainedTokenizerFast, **fields: Any) -> Format:
    return choose_format(StudySpec(**fields), columns=list(row), first_row=row, tokenizer=words)


def rendered(row: Mapping[str, object], words: PreTrainedTokenizerFast, **fields: Any) -> RenderedRow:
    found = format_of(row, words, **fields).render(row, 7)
    assert isinstance(found, RenderedRow)
    return found


def targets(row: RenderedRow) -> list[str]:
    return [row.text[start:end] for start, end in row.spans]

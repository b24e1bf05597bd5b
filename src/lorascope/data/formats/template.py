"""Chat templates: rendering of a conversation, and how a template treats content, tool arguments and marks."""

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from functools import cached_property
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from lorascope.errors import InputError

Message = Mapping[str, object]
Messages = Sequence[Message]
Options = Mapping[str, Any]
"""Arguments of ``apply_chat_template`` beside the messages: ``tools``, ``documents``, variables of the template."""

# whatever the template's code and Jinja's sandbox can raise, but for memory and interrupts
_FAILURES = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError, AssertionError)
_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
_NOW = "strftime_now"
_PROBE, _UNHEARD_OF = "probe", "unheard-of"


def prints_date(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return True if the chat template asks for the current date."""
    return _NOW in str(tokenizer.chat_template)


def _date_macro(day: date) -> str:
    """Return a macro in place of Transformers' ``strftime_now``, as variables of a template cannot be functions."""
    midnight = datetime.combine(day, time())
    values = {f"%{letter}": midnight.strftime(f"%{letter}") for letter in "aAbBcdHIjmMpSUwWxXyYZ"}
    # the usual ones that not every platform's strftime has
    values |= {f"%-{letter}": values[f"%{letter}"].lstrip("0") or "0" for letter in "dHIjmMSUWy"}
    values |= {"%e": f"{day.day:2}", "%F": str(day), "%D": f"{day:%m/%d/%y}", "%T": "00:00:00", "%R": "00:00"}
    replaced = "".join(f".replace({directive!r}, {value!r})" for directive, value in values.items())
    text = f"format.replace('%%', '\\0'){replaced}.replace('\\0', '%')"
    # the line's end is dropped, so that the template itself begins a line as before
    return f"{{%- macro {_NOW}(format) -%}}{{{{- {text} -}}}}{{%- endmacro %}}\n"


class ChatTemplate:
    """The chat template of a tokenizer, which prints ``day`` for the current date."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, day: date | None = None) -> None:
        if tokenizer.chat_template is None:
            raise InputError(
                "the rows are messages, but the model's tokenizer has no chat template",
                remedy="choose an instruction-tuned model, or give prompt and completion as text",
            )
        self._tokenizer = tokenizer
        self._preamble = _date_macro(day) if day else ""
        self._known: dict[str, bool] = {}

    def render(self, messages: Messages, options: Options, number: int, *, for_answer: bool = False) -> str:
        """Render messages of row ``number``; ``for_answer`` appends the generation prompt.

        Raises:
            InputError: the template refuses them or fails.
        """
        try:
            return self._apply(messages, options, for_answer=for_answer)
        except TemplateError as error:
            raise InputError(
                f"the model's chat template refuses the messages of row {number}: {error}",
                remedy="give messages in the order and with the roles that the model's template knows",
            ) from error
        except _FAILURES as error:
            raise InputError(
                f"the model's chat template fails on row {number}: {type(error).__name__}: {str(error)[:300]}",
                remedy="correct the template (chat_template in the tokenizer's files), or give what it needs in the "
                "row's messages, tools or chat_template_kwargs",
            ) from error

    def _apply(self, messages: Messages, options: Options, *, for_answer: bool = False) -> str:
        rendered = self._tokenizer.apply_chat_template(
            list(messages),  # type: ignore[arg-type]  # messages with tool calls hold more than text
            tokenize=False,
            add_generation_prompt=for_answer,
            chat_template=self._source(options),
            **options,
        )
        return str(rendered)

    def _source(self, options: Options) -> str:
        return self._preamble + self._tokenizer.get_chat_template(tools=options.get("tools"))

    @cached_property
    def has_marks(self) -> bool:
        """True if it marks what the assistant generates: ``{% generation %}``."""
        return _MARK.search(str(self._tokenizer.chat_template)) is not None

    def marks(self, messages: Messages, options: Options) -> list[tuple[int, int]]:
        """Return the character ranges of the text that the template marks as generated."""
        variables = {**self._tokenizer.special_tokens_map, **options}
        # its type hint says str, and it returns texts and ranges
        rendered: Any = render_jinja_template(
            [[dict(message) for message in messages]],
            chat_template=self._source(options),
            return_assistant_tokens_mask=True,
            **variables,
        )
        return list(rendered[1][0])

    def reads(self, option: str) -> bool:
        """Return False for ``documents`` where the template never names them, and ``tools`` where it writes none."""
        if option not in ("tools", "documents"):
            return True
        named = option in str(self._tokenizer.chat_template)
        if option == "documents" or not named:
            return named
        function = {"name": _PROBE, "description": _PROBE, "parameters": {"type": "object", "properties": {}}}
        user, system = {"role": "user", "content": "u"}, {"role": "system", "content": "s"}
        tools = [{"type": "function", "function": function}]
        texts = [self._tried(*messages, tools=tools) for messages in ((user,), (system, user))]
        # one that refuses the probe is taken at its word
        return any(not text or _PROBE in text for text in texts)

    def knows(self, role: str) -> bool:
        """Return True if the template writes this role differently from an unknown one, apart from its name."""
        if role not in self._known:
            self._known[role] = self._tried_as(role, role) != self._tried_as(_UNHEARD_OF, role)
        return self._known[role]

    def _tried_as(self, name: str, role: str) -> list[str]:
        turns = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
        texts = [self._tried(*turns[:before], {"role": name, "content": _PROBE}) for before in range(3)]
        return [text.replace(role, "").replace(_UNHEARD_OF, "") for text in texts]

    @cached_property
    def content_as_parts(self) -> bool:
        """True if it writes content that is a list of parts only, as templates of vision models may."""
        text = {"role": "user", "content": _PROBE}
        parts = {"role": "user", "content": [{"type": "text", "text": _PROBE}]}
        return _PROBE not in self._tried(text) and _PROBE in self._tried(parts)

    @cached_property
    def arguments_as_text(self) -> bool:
        """True if it takes the arguments of a tool call as JSON text, not as an object."""
        as_object, as_text = (self._tried(*_probe_call(value)) for value in ({_PROBE: 1}, f'{{"{_PROBE}": 1}}'))
        written = f'"{_PROBE}"'  # not Python's own quotes, and not JSON inside of JSON
        return written not in as_object and written in as_text

    def _tried(self, *messages: Message, **options: object) -> str:
        try:
            return self._apply(messages, options)
        except (TemplateError, *_FAILURES):
            return ""


def _probe_call(arguments: object) -> list[Message]:
    call = {"type": "function", "id": "a12345678", "function": {"name": "f", "arguments": arguments}}
    return [{"role": "user", "content": "u"}, {"role": "assistant", "content": "", "tool_calls": [call]}]

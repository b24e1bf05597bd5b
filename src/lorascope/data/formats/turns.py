"""Turns of a conversation: messages of every usual dialect in the form that chat templates take."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lorascope.data.formats.template import ChatTemplate, Message
from lorascope.errors import InputError

_CALL = "function_call"
_ALIASES = {
    "assistant": ("assistant", "gpt", "chatgpt", "bing", "bard", "claude", "model", "bot", "ai"),
    "user": ("user", "human", "prompter"),
    "system": ("system", "developer"),
    "tool": ("tool", "function", "observation", "ipython", "tool_response", "function_response", "tool_result"),
    _CALL: (_CALL, "tool_call"),
}
ROLES = {alias: role for role, aliases in _ALIASES.items() for alias in aliases}
"""The canonical role of each name, in lower case."""
SWITCHES = ("weight", "train", "trainable", "training", "loss", "loss_mask")
"""Keys of a turn, or columns beside the turns, that say whether it is trained."""
THINKING = ("reasoning_content", "thinking", "reasoning")
"""Keys of a message under which templates know its thinking."""
_MEDIA = ("image", "video", "audio")
_OWN_KEYS = frozenset({"role", "from", "content", "value", "function_call", "tool_calls", *SWITCHES})


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One message, and whether the row says to train it."""

    message: Message
    """As the chat template takes it; ``role`` and ``content`` are there."""
    switch: bool | None
    """None where the row does not say."""

    @property
    def is_answer(self) -> bool:
        """True for a turn of the assistant."""
        return self.message["role"] == "assistant"

    @property
    def says_something(self) -> bool:
        """True unless content, thinking and tool calls are all blank."""
        texts = (self.text, *thinking(self.message))
        return bool(self.message.get("tool_calls")) or any(text.strip() for text in texts)

    @property
    def text(self) -> str:
        """Content as text."""
        return content_text(self.message)


def content_text(message: Message) -> str:
    """Return the content of a message that ``read_turns`` made, as text."""
    content = message["content"]
    return "".join(part["text"] for part in content) if isinstance(content, list) else str(content)


def thinking(message: Message) -> list[str]:
    """Return what the message holds of thinking, under the names that templates know."""
    return [str(message[name]) for name in THINKING if isinstance(message.get(name), str)]


def read_turns(cell: object, template: ChatTemplate, number: int) -> list[Turn]:
    """Read the messages in a cell of row ``number``: a list, one message, or JSON text of them.

    Raises:
        InputError: something in it is no message, its role is unknown, or it holds more than text.
    """
    if isinstance(cell, str) and cell.lstrip()[:1] in ("[", "{"):
        cell = parse_json(cell, f"row {number}", "messages")
    items = cell if isinstance(cell, list | tuple) else [] if cell is None else [cell]
    return [_read_turn(message, template, number) for item in items for message in _messages(item)]


def _messages(item: object) -> list[object]:
    """Return the item as messages: two for a question and its answer under ``input`` and ``output``."""
    if not isinstance(item, Mapping) or {"role", "from"} & item.keys() or not {"input", "output"} <= item.keys():
        return [item]
    switches = {name: item[name] for name in SWITCHES if name in item}
    return [{"role": "user", "content": item["input"]}, {"role": "assistant", "content": item["output"], **switches}]


def _read_turn(item: object, template: ChatTemplate, number: int) -> Turn:
    role = (item.get("role") or item.get("from")) if isinstance(item, Mapping) else None
    if not isinstance(item, Mapping) or not isinstance(role, str):
        raise InputError(
            f"row {number} holds {item!r:.60} where a message is needed",
            remedy='give a list of messages such as {"role": "user", "content": "..."} in every row',
        )
    content = item["content"] if item.get("content") is not None else item.get("value")
    text = _read_content(content, number)
    canonical = _canonical(role, template, number)
    calls = list(_calls(item, text if canonical == _CALL else None, template, number))
    # a key without a value is absent: templates ask whether it is there
    rest = {key: value for key, value in item.items() if value is not None and key not in _OWN_KEYS}
    message: dict[str, object] = {"role": canonical, "content": text, **rest}
    if canonical == _CALL:
        message |= {"role": "assistant", "content": ""}
    if template.content_as_parts:
        message["content"] = [{"type": "text", "text": message["content"]}]
    if calls:
        message["tool_calls"] = calls
    return Turn(message=message, switch=_switch(item, number))


def _canonical(role: str, template: ChatTemplate, number: int) -> str:
    known = ROLES.get(role.strip().lower())
    if known not in ("assistant", "user", _CALL) and role != known and template.knows(role):
        return role  # the template has a place of its own for it
    if known is None:
        raise InputError(
            f"row {number} has a turn with the unknown role {role!r}",
            remedy=f"rename it to one of: {', '.join(ROLES)}",
        )
    return known


def _read_content(content: object, number: int) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list | tuple):
        return "".join(_part_text(part, number) for part in content)
    raise InputError(
        f"row {number} has a message whose content is a {type(content).__name__}",
        remedy="give every message its content as text, or as a list of parts of the type text",
    )


def _part_text(part: object, number: int) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    text = part.get("text") if isinstance(part, Mapping) else None
    if kind in ("text", "input_text", None) and isinstance(text, str):
        return text
    if any(medium in str(kind) for medium in _MEDIA):
        raise refuse_media(number, f"content of the type {kind!r}")
    raise InputError(
        f"row {number} has a message with content of the type {kind!r} without text",
        remedy='give parts of content as {"type": "text", "text": "..."}',
    )


def refuse_media(number: int, what: str) -> InputError:
    """Return the error for a row with images, video or audio."""
    return InputError(
        f"row {number} has {what}, and only text is studied",
        remedy="give rows without images, video or audio",
    )


def _calls(
    item: Mapping[str, object], said: str | None, template: ChatTemplate, number: int
) -> Iterator[Mapping[str, object]]:
    """Yield the tool calls of a message: ``tool_calls``, OpenAI's old ``function_call``, or a turn that is one."""
    where = f"row {number}"
    found = item.get("tool_calls") or item.get("function_call") or said
    if isinstance(found, str):
        found = parse_json(found, where, "tool calls")
    calls: Sequence[Any] = found if isinstance(found, list | tuple) else [found] if found else []
    for call in calls:
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise InputError(
                f"{where} holds {call!r:.60} where a tool call is needed",
                remedy='give calls such as {"type": "function", "function": {"name": "f", "arguments": {}}}',
            )
        arguments = _arguments(function.get("arguments"), template)
        others = {key: value for key, value in call.items() if value is not None and function is not call}
        yield {"type": "function", **others, "function": {**function, "arguments": arguments}}


def _arguments(found: object, template: ChatTemplate) -> object:
    """Return arguments of a call as the template takes them: an object, or JSON text."""
    if template.arguments_as_text:
        return found if isinstance(found, str) else json.dumps(found or {}, ensure_ascii=False)
    if isinstance(found, str):
        try:
            return json.loads(found)
        except ValueError:
            return found
    return found or {}


def _switch(item: Mapping[str, object], number: int) -> bool | None:
    given = [read_switch(item[key], key, number) for key in SWITCHES if item.get(key) is not None]
    return all(given) if given else None


def read_switch(value: object, name: str, number: int) -> bool:
    """Read 0 or 1 (false or true). Raises InputError for anything else."""
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    raise InputError(
        f"row {number} has the {name} {value!r:.40}",
        remedy="give 0 for a turn that is not trained and 1 for one that is: there are no weights in between",
    )


def parse_json(text: str, where: str, what: str) -> object:
    """Read JSON text in a cell. Raises InputError where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{where} has {what} that are not JSON: {text!r:.60}", remedy="correct the JSON text"
        ) from error

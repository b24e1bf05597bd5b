"""Answers in rendered text: where each of the assistant's turns begins and ends.

A template is a program, so a turn's place is found by rendering the conversation once more with a mark in its place.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lorascope.data.formats.template import Message, Messages
from lorascope.data.formats.turns import THINKING, content_text, thinking
from lorascope.errors import InputError

_PRIVATE_USE = range(0xE000, 0xF8FF)
_PIECES = re.compile(r"<[^<>\s]*>|\[[^\[\]\s]*\]|\s|[^\s<\[]+|.")
"""Markup, single white space, words: what an end of turn is made of."""

Render = Callable[..., str]
"""Renders messages; with ``for_answer`` the generation prompt follows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """Half-open character range of one answer with the end that the template writes."""

    start: int
    end: int
    whole: bool
    """False if the template leaves out some of the message's text, such as its thinking."""
    blank: bool
    """True if nothing but its end is left."""


class _UnplacedError(Exception):
    """The mark is not in the text exactly once."""


def find_answer(messages: Messages, turn: int, text: str, render: Render, number: int) -> Answer:
    """Find the answer ``messages[turn]`` in ``text``, the rendered messages of row ``number``.

    Raises:
        InputError: the template does not write it exactly once, or writes later turns in another way because of it.
    """
    try:
        for some in (messages[: turn + 1], _without_thinking(messages[: turn + 1])):
            through = text if turn == len(messages) - 1 else render(some)
            start, own_end = _place(some, turn, through, render)
            tail = through[own_end:]
            if text.startswith(through[:own_end]):
                break
        else:  # the whole conversation writes earlier turns in yet another way
            start, own_end = _place(messages, turn, text, render)
    except _UnplacedError as error:
        raise InputError(
            f"the model's chat template does not write turn {turn + 1} of row {number} in one place, so its targets "
            "cannot be told",
            remedy="give conversations that the template writes turn by turn, or set completion_only_loss to false",
        ) from error
    end = own_end + _shared(tail, text[own_end:])
    written = text[start:own_end]
    return Answer(start=start, end=end, whole=_holds_all(messages[turn], written), blank=not written.strip())


def _without_thinking(messages: Messages) -> Messages:
    """Return the messages as templates write them that leave out the thinking of earlier turns."""
    return [{name: value for name, value in message.items() if name not in THINKING} for message in messages]


def writes_calls(messages: Messages, turns: Sequence[int], render: Render) -> bool:
    """Return False if the template leaves out a tool call of these turns: its function, or one of its arguments.

    Each of them is replaced by a mark of its own in one more rendering.
    """
    marks: list[str] = []

    def mark() -> str:
        marks.append(f"zq{len(marks):04}zq")
        return marks[-1]

    def marked(call: Mapping[str, Any]) -> dict[str, object]:
        function, given = call["function"], call["function"]["arguments"]
        arguments: object = {key: mark() for key in given} if isinstance(given, Mapping) else mark()
        return {**call, "function": {**function, "name": mark(), "arguments": arguments}}

    changed = [dict(message) for message in messages]
    for turn in turns:
        if isinstance(calls := messages[turn].get("tool_calls"), list):
            changed[turn]["tool_calls"] = [marked(call) for call in calls]
    if not marks:
        return True
    try:
        text = render(changed)
    except InputError:  # the template reads what is called, so it writes it
        return True
    return all(one in text for one in marks)


def _place(messages: Messages, turn: int, text: str, render: Render) -> tuple[int, int]:
    """Return where the answer begins and where its own words end, before the end that the template writes."""
    mark = next(chr(code) for code in _PRIVATE_USE if chr(code) not in text)
    content = [{"type": "text", "text": mark}] if isinstance(messages[turn]["content"], list) else mark
    marked = render([*messages[:turn], {"role": "assistant", "content": content}, *messages[turn + 1 :]])
    if marked.count(mark) != 1:
        raise _UnplacedError
    at = marked.index(mark)
    after = marked[at + 1 :]
    if turn < len(messages) - 1 and not text.endswith(after):
        raise _UnplacedError
    own_end = len(text) - (len(after) if text.endswith(after) else _common(text[::-1], after[::-1]))
    if text.startswith(marked[:at]):
        return at, max(at, own_end)
    return _behind_header(messages[:turn], text, _common(text, marked), render), own_end


def _behind_header(before: Messages, text: str, differs: int, render: Render) -> int:
    """Return the start of an answer that begins otherwise than with its content, such as with its thinking.

    It follows the generation prompt where the text holds that; else it starts where it ``differs`` from another one.
    """
    if not before:
        return differs
    without, prompted = render(before), render(before, for_answer=True)
    prompt = prompted.removeprefix(without)
    if not prompt or prompt == prompted:
        return differs
    found = text.rfind(prompt, len(without) if text.startswith(without) else 0, differs)
    return differs if found < 0 else found + len(prompt)


def _common(one: str, other: str) -> int:
    """Return the length of the common beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))


def _shared(tail: str, text: str) -> int:
    """Return how many characters of ``tail``, the end of an answer that comes last, follow here as well."""
    if text.startswith(tail):
        return len(tail)
    length = 0
    for one, other in zip(_pieces(tail), _pieces(text), strict=False):
        if one != other:
            break
        length += len(one)
    return length


def _pieces(text: str) -> Iterator[str]:
    return (found.group() for found in _PIECES.finditer(text))


def _holds_all(message: Message, written: str) -> bool:
    texts = (content_text(message), *thinking(message))
    return all("".join(text.split()) in "".join(written.split()) for text in texts)

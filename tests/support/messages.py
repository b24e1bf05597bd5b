"""Messages of made-up records, and messages found in a summary."""

from collections.abc import Iterator, Mapping
from typing import Any

from lorascope.message import Message, Value

ASKED = Message("asked")


def verbatim(text: str) -> Message:
    return Message("verbatim", text=text)


def messages_in(found: Value) -> Iterator[Message]:
    """Yield messages in the order they are said, an outer one before those in it."""
    if isinstance(found, Message):
        yield found
        found = tuple(found.values.values())
    for inner in found if isinstance(found, tuple) else ():
        yield from messages_in(inner)


def codes(found: Value) -> list[str]:
    return [message.code for message in messages_in(found)]


def values_of(found: Value, code: str) -> Mapping[str, Any]:
    """Return the values of the one message with this code."""
    (message,) = (message for message in messages_in(found) if message.code == code)
    return message.values

"""Messages of made-up records."""

from lorascope.message import Message

ASKED = Message("asked")


def verbatim(text: str) -> Message:
    return Message("verbatim", text=text)

"""Render messages: the sentence of a code, with its values as people read them, in the language in use.

A template names its values in braces, with the way each is written behind a colon: ``{loss:nats}``, ``{size:bytes}``,
``{excess:interval}``, or a format of Python's own. A message inside a message is rendered first; several are a list.
"""

from collections.abc import Callable, Mapping, Sequence
from string import Formatter

from lorascope.message import Message, Value
from lorascope.text.language import tr, trn
from lorascope.text.numbers import (
    bare_points,
    chance,
    fewer_points,
    fewer_points_interval,
    format_about,
    format_count,
    format_seconds,
    fraction,
    interval,
    lower_first,
    nats,
    one_of,
    ranks,
    upper,
)
from lorascope.text.sentences import SENTENCES, Plural
from lorascope.units import format_bytes

KINDS: Mapping[str, Callable[..., str]] = {
    "about": format_about,
    "bare_points": bare_points,
    "bytes": format_bytes,
    "chance": chance,
    "count": format_count,
    "fewer": fewer_points,
    "fraction": fraction,
    "interval": lambda estimate: interval(*estimate),
    "list": lambda values: _joined(", ", values),
    "lower": lambda value: lower_first(_text(value)),
    "nats": nats,
    "or": one_of,
    "percent": "{:.1%}".format,
    "points": lambda estimate: fewer_points_interval(*estimate),
    "ranks": ranks,
    "seconds": format_seconds,
    "semicolons": lambda values: _joined("; ", values),
    "upper": lambda estimate: upper(*estimate),
}
"""How a value is written, by the name behind the colon."""


def say(message: Message | Sequence[Message]) -> str:
    """Render a message, or several behind one another, in the language in use.

    Raises KeyError for an unknown code: each is listed in SENTENCES.
    """
    if not isinstance(message, Message):
        return " ".join(map(say, message))
    sentence = SENTENCES[message.code]
    values = {name: _Written(value) for name, value in message.values.items()}
    if isinstance(sentence, Plural):
        counted = message.values[sentence.count]
        count = len(counted) if isinstance(counted, tuple) else counted
        assert isinstance(count, int)
        return trn(sentence.one, sentence.many, count, **values)
    return tr(sentence, **values)


class _Written:
    """A value that writes itself as its template asks."""

    def __init__(self, value: Value) -> None:
        self._value = value

    def __repr__(self) -> str:
        return repr(self._value)

    def __format__(self, kind: str) -> str:
        if kind in KINDS:
            return KINDS[kind](self._value)
        return format(self._value, kind) if kind else _text(self._value)


def _text(value: Value) -> str:
    if isinstance(value, Message):
        return say(value)
    return _joined(" ", value) if isinstance(value, tuple) else str(value)


def _joined(separator: str, values: Sequence[Value]) -> str:
    return separator.join(map(_text, values))


def names_in(template: str) -> set[str]:
    """Return the names in a template's braces."""
    return {name for _, name, _, _ in Formatter().parse(template) if name}

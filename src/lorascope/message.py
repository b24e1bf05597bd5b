"""Language-free messages: a code and the values that its sentence needs.

Records and summaries carry messages; ``lorascope.text`` alone knows the sentences, in every language.
"""

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Union

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, PlainSerializer, WithJsonSchema
from pydantic_core import CoreSchema, core_schema

Value = Union[str, int, float, None, tuple["Value", ...], "Message"]
"""What a sentence may name. A tuple is a list of things, or an estimate with its interval (value, low, high)."""


class Message:
    """A code with named values; immutable, and equal where both are.

    Args:
        code: names the sentence, such as ``verdict.adequate``; the part before the dot is its subject.
        values: numbers without formatting, names, and messages inside the sentence.
    """

    __slots__ = ("code", "values")
    code: str
    values: Mapping[str, Value]

    def __init__(self, code: str, /, **values: Value) -> None:
        object.__setattr__(self, "code", code)
        object.__setattr__(self, "values", MappingProxyType(values))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a message is immutable: {name}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Message) and (self.code, self.values) == (other.code, other.values)

    def __hash__(self) -> int:
        return hash((self.code, tuple(self.values.items())))

    def __reduce__(self) -> tuple[Callable[[str], "Message"], tuple[str]]:
        return Message.of_json, (self.to_json(),)

    def __repr__(self) -> str:
        return (
            ", ".join((f"Message({self.code!r}", *(f"{name}={value!r}" for name, value in self.values.items()))) + ")"
        )

    def to_json(self) -> str:
        """Write the message as JSON, from which ``of_json`` makes an equal one."""
        return json.dumps(_plain(self), ensure_ascii=False)

    @staticmethod
    def of_json(text: str) -> "Message":
        """Read what ``to_json`` wrote. Raises ValueError for anything else."""
        found = _restored(json.loads(text))
        if not isinstance(found, Message):
            raise ValueError(f"no message: {text[:100]}")  # noqa: TRY004 - it is the text that is wrong
        return found

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Keep the message as it is; JSON is written with the ``say`` of the serialisation's context."""
        say = core_schema.plain_serializer_function_ser_schema(
            lambda message, info: info.context["say"](message), info_arg=True, when_used="json"
        )
        return core_schema.is_instance_schema(cls, serialization=say)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Describe what ``say`` makes of it."""
        return {"type": "string"}


Sentences = Annotated[
    tuple[Message, ...],
    PlainSerializer(lambda messages, info: info.context["say"](messages), when_used="json"),
    WithJsonSchema({"type": "string"}),
]
"""Sentences behind one another, a field of a summary: one text in JSON, empty without any."""


def _plain(value: Value) -> object:
    if isinstance(value, Message):
        return {"code": value.code, "values": {name: _plain(inner) for name, inner in value.values.items()}}
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value


def _restored(value: object) -> Value:
    if isinstance(value, dict):
        return Message(str(value["code"]), **{name: _restored(inner) for name, inner in value["values"].items()})
    if isinstance(value, list):
        return tuple(map(_restored, value))
    assert value is None or isinstance(value, str | int | float)
    return value

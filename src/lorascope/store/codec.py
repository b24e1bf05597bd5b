"""Encode a record's field as a SQLite value and decode it to an equal one, bit for bit."""

import json
import math
import struct
import types
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import numpy as np

from lorascope.message import Message
from lorascope.records import TokenCounts

T = TypeVar("T")
SqlValue = str | int | float | bytes | None
_TYPE_NAMES = {str: "s", int: "i", float: "f", bytes: "b", type(None): "n"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Codec:
    """Two functions that undo each other, and the column that holds their values."""

    affinity: Literal["TEXT", "INTEGER", "REAL", "BLOB"]
    encode: Callable[[Any], SqlValue]
    decode: Callable[[Any], Any]
    nullable: bool = False


def _same(value: T) -> T:
    return value


def _encode_float(value: float) -> SqlValue:
    # SQLite turns NaN into NULL and -0.0 into 0, so that these go in as their eight bytes.
    if math.isnan(value) or (value == 0 and math.copysign(1, value) < 0):
        return struct.pack("<d", value)
    return float(value)


def _decode_float(value: SqlValue) -> float:
    if isinstance(value, bytes):
        number: float = struct.unpack("<d", value)[0]
        return number
    assert isinstance(value, float)
    return value


def _plain(affinity: Literal["TEXT", "INTEGER", "BLOB"]) -> Codec:
    return Codec(affinity=affinity, encode=_same, decode=_same)


def _array(dtype: str) -> Codec:
    def encode(values: tuple[float, ...]) -> bytes:
        return np.array(values, dtype=dtype).tobytes()

    def decode(blob: bytes) -> tuple[float, ...]:
        return tuple(np.frombuffer(blob, dtype=dtype).tolist())

    return Codec(affinity="BLOB", encode=encode, decode=decode)


def _json(pack: Callable[[Any], object], unpack: Callable[[Any], object]) -> Codec:
    def encode(value: object) -> str:
        return json.dumps(pack(value), ensure_ascii=False)

    def decode(text: str) -> object:
        return unpack(json.loads(text))

    return Codec(affinity="TEXT", encode=encode, decode=decode)


_BY_TYPE: dict[Any, Codec] = {
    str: _plain("TEXT"),
    int: _plain("INTEGER"),
    bytes: _plain("BLOB"),
    bool: Codec(affinity="INTEGER", encode=int, decode=bool),
    float: Codec(affinity="REAL", encode=_encode_float, decode=_decode_float),
    Message: Codec(affinity="TEXT", encode=Message.to_json, decode=Message.of_json),
    tuple[float, ...]: _array("<f8"),
    tuple[int, ...]: _array("<i8"),
    TokenCounts: _array("<i4"),
    tuple[str, ...]: _json(list, tuple),
    tuple[Message, ...]: _json(
        lambda messages: [message.to_json() for message in messages], lambda texts: tuple(map(Message.of_json, texts))
    ),
    dict[str, str]: _json(_same, _same),
}


def codec_of(hint: object) -> Codec:
    """Return the codec of a field's type. Raises TypeError for a type that no codec keeps exactly."""
    if get_origin(hint) in {types.UnionType, Union}:  # that of an annotated type is the second
        (inner,) = (option for option in get_args(hint) if option is not types.NoneType)
        codec = codec_of(inner)
        return replace(codec, encode=_unless_none(codec.encode), decode=_unless_none(codec.decode), nullable=True)
    if get_origin(hint) is Literal:
        return _BY_TYPE[str]
    if hint not in _BY_TYPE:
        raise TypeError(f"the store has no codec for {hint}")
    return _BY_TYPE[hint]


def _unless_none(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else function(value)


def checksum(values: Iterable[SqlValue]) -> int:
    """Return the CRC-32 of a row's values with their types."""
    total = 0
    for value in values:
        if isinstance(value, float):
            data = struct.pack("<d", value)
        else:
            data = value if isinstance(value, bytes) else str(value).encode()
        total = zlib.crc32(f"{_TYPE_NAMES[type(value)]}{len(data)}:".encode() + data, total)
    return total

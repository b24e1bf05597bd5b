"""How a record's field becomes a SQLite value and comes back equal, bit for bit."""

import json
import math
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
SqlValue = str | int | float | bytes | None
_TYPE_NAMES = {str: "s", int: "i", float: "f", bytes: "b", type(None): "n"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Codec:
    """Two functions that undo each other."""

    encode: Callable[[Any], SqlValue]
    decode: Callable[[Any], Any]


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


def _encode_optional(value: float | None) -> SqlValue:
    return None if value is None else _encode_float(value)


def _decode_optional(value: SqlValue) -> float | None:
    return None if value is None else _decode_float(value)


def _array(dtype: str) -> Codec:
    def encode(values: tuple[float, ...]) -> bytes:
        return np.array(values, dtype=dtype).tobytes()

    def decode(blob: bytes) -> tuple[float, ...]:
        return tuple(np.frombuffer(blob, dtype=dtype).tolist())

    return Codec(encode=encode, decode=decode)


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


def _encode_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _decode_tuple(text: str) -> tuple[Any, ...]:
    return tuple(json.loads(text))


PLAIN = Codec(encode=_same, decode=_same)
BOOL = Codec(encode=int, decode=bool)
FLOAT = Codec(encode=_encode_float, decode=_decode_float)
OPTIONAL_FLOAT = Codec(encode=_encode_optional, decode=_decode_optional)
FLOAT64_ARRAY = _array("<f8")
INT32_ARRAY = _array("<i4")
INT64_ARRAY = _array("<i8")
TEXT_TUPLE = Codec(encode=_encode_json, decode=_decode_tuple)
TEXT_DICT = Codec(encode=_encode_json, decode=json.loads)

BY_TYPE: dict[Any, Codec] = {
    bool: BOOL,
    float: FLOAT,
    float | None: OPTIONAL_FLOAT,
    tuple[float, ...]: FLOAT64_ARRAY,
    tuple[int, ...]: INT64_ARRAY,
    tuple[str, ...]: TEXT_TUPLE,
    dict[str, str]: TEXT_DICT,
}
"""The codec of each field type; every other type is a SQLite type already."""

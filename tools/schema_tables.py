"""Tables of the fields of JSON objects, from their JSON Schema."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

Parts = Mapping[str, Any]
"""Schemas of objects by name."""


def in_order(parts: Parts, *first: str) -> Iterator[str]:
    """Yield these objects' names, and behind them those that their fields lead to."""
    seen, waiting = set(), [*first]
    while waiting:
        name = waiting.pop(0)
        if name not in seen:
            seen.add(name)
            yield name
            waiting += [found for field in parts[name]["properties"].values() for found in _references(field)]


def table(title: str, part: Mapping[str, Any], parts: Parts) -> str:
    """Write an object's description and its fields under a heading."""
    rows = []
    for name, field in part["properties"].items():
        # Where the text under a field equals that of its part, pydantic keeps only the part's.
        meaning = field.get("description") or _description(field, parts)
        rows.append(f"| `{name}` | {_type(field)} | {' '.join(meaning.split())} |")
    head = f"## {title}\n\n{part['description']}\n\n| field | type | meaning |\n| --- | --- | --- |\n"
    return head + "\n".join(rows) + "\n"


def _description(field: Mapping[str, Any], parts: Parts) -> str:
    return "Always this." if "const" in field else str(parts[_references(field)[0]]["description"])


def _references(field: Mapping[str, Any]) -> list[str]:
    text = json.dumps(field)
    return [piece.split('"')[0] for piece in text.split('"#/$defs/')[1:]]


def _type(field: dict[str, Any]) -> str:
    match field:
        case {"$ref": _}:
            name = label(_references(field)[0])
            text = f"[{name}](#{name})"
        case {"anyOf": options}:
            text = " or ".join(_type(option) for option in options)
        case {"enum": values}:
            text = ", ".join(f"`{value}`" for value in values)
        case {"const": value}:
            text = f"`{value}`"
        case {"prefixItems": items}:
            text = f"list of {len(items)} numbers"
        case {"type": "array", "items": item}:
            text = f"list of {_type(item)}"
        case {"type": "object", "additionalProperties": {"type": kind}}:
            text = f"object of {kind}s"
        case _:
            text = str(field["type"])
    return text


def label(name: str) -> str:
    """Return the heading of an object by the name of its class."""
    for suffix in ("Section", "Info", "Part"):
        name = name.removesuffix(suffix)
    return name.lower()

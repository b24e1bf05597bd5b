"""Make docs/summary.md and the JSON Schema of summary.json: ``python tools/summary_reference.py``."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lorascope.analysis import summary

PAGE = Path(__file__).parents[1] / "docs" / "summary.md"
SCHEMA = Path(summary.__file__).with_name("summary.schema.json")
HEAD = """# summary.json

Written by `lorascope run` and `lorascope report`; read it from scripts. Its JSON Schema ships with the package as
`lorascope/analysis/summary.schema.json`. Both are made from the program by `python tools/summary_reference.py`. How
each number is computed is in [numbers.md](numbers.md).

`null` means that the number does not exist: not measured, not reached yet, or not finite. Losses are in nats a token.
Fields may be added without a new `schema_version`; it grows when a field changes its meaning or goes away.
"""


def schema() -> dict[str, Any]:
    """Make the JSON Schema (draft 2020-12) that every summary.json obeys."""
    return summary.StudySummary.model_json_schema(mode="serialization")


def page() -> str:
    """Make the reference page: a table of every section's fields."""
    parts = {"summary": schema(), **schema()["$defs"]}
    return "\n".join([HEAD, *(_table(title, part, parts) for title, part in _in_order(parts))])


def _in_order(parts: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    seen, waiting = set(), ["summary"]
    while waiting:
        name = waiting.pop(0)
        if name not in seen:
            seen.add(name)
            yield name, parts[name]
            waiting += [found for field in parts[name]["properties"].values() for found in _references(field)]


def _table(title: str, part: dict[str, Any], parts: dict[str, Any]) -> str:
    rows = []
    for name, field in part["properties"].items():
        # Where the text under a field equals that of its part, pydantic keeps only the part's.
        meaning = field.get("description") or parts[_references(field)[0]]["description"]
        rows.append(f"| `{name}` | {_type(field)} | {' '.join(meaning.split())} |")
    head = f"## {_label(title)}\n\n{part['description']}\n\n| field | type | meaning |\n| --- | --- | --- |\n"
    return head + "\n".join(rows) + "\n"


def _references(field: dict[str, Any]) -> list[str]:
    text = json.dumps(field)
    return [piece.split('"')[0] for piece in text.split('"#/$defs/')[1:]]


def _type(field: dict[str, Any]) -> str:
    match field:
        case {"$ref": _}:
            name = _label(_references(field)[0])
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
        case _:
            text = "object of strings" if field["type"] == "object" else str(field["type"])
    return text


def _label(title: str) -> str:
    return title.removesuffix("Section").removesuffix("Info").lower()


def schema_text() -> str:
    return json.dumps(schema(), indent=1) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    SCHEMA.write_text(schema_text(), encoding="utf-8")

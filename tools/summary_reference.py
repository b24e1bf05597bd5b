"""Make docs/summary.md and the JSON Schema of summary.json: ``python tools/summary_reference.py``."""

import json
from pathlib import Path
from typing import Any

from lorascope.analysis import summary
from schema_tables import in_order, label, table

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
    return "\n".join([HEAD, *(table(label(name), parts[name], parts) for name in in_order(parts, "summary"))])


def schema_text() -> str:
    return json.dumps(schema(), indent=1) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    SCHEMA.write_text(schema_text(), encoding="utf-8")

"""Make docs/reference.md from the schema, the presets and the command line: ``python tools/reference.py``."""

import inspect
import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from lorascope.cli.app import app
from lorascope.cli.help import STUDY_HELP
from lorascope.spec.load import PRESET_FOLDER, preset_names
from lorascope.spec.schema import StudySpec

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
COMMANDS = ("run", "plan", "rows", "report", "serve", "export", "push", "audit", "skill", "doctor")
KINDS = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
}
BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
}
HEAD = """# Reference

Made from the program by `python tools/reference.py`; a test holds it current.

## Exit codes

| code | meaning |
| --- | --- |
| 0 | done |
| 1 | a trial failed, diverged or ran out of memory; the others finished |
| 2 | bad input; one message on standard error, nothing was trained |
| 130 | interrupted; the same command continues the study |

## Commands
"""
FIELDS = """## The study file

YAML with any of these fields; flags of the same names override them, and the defaults fill the rest. `lorascope run`
writes the resolved study to `study.yaml` in the study's folder. On the command line a list is written with commas
(`--ranks 8,128,256`); a single name after `--target-modules` is a name ending, and anything with other signs than
letters, digits, `_`, `.`, `-` and `,` is a regular expression.
"""


def page() -> str:
    parts = [HEAD, *(command_help(name) for name in COMMANDS), FIELDS]
    parts += [field_text(name) for name in StudySpec.model_fields]
    parts += ["## Presets\n", *(preset_text(name) for name in preset_names())]
    return "\n".join(parts)


def command_help(name: str) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=100, color_system=None, force_terminal=False, legacy_windows=False)
    STUDY_HELP.everything = True
    app.help_print([name], console=console)
    lines = "\n".join(line.rstrip() for line in stream.getvalue().strip().splitlines())
    return f"### `lorascope {name}`\n\n```text\n{lines}\n```\n"


def field_text(name: str) -> str:
    field = StudySpec.model_fields[name]
    schema = StudySpec.model_json_schema()["properties"][name]
    kinds = " or ".join(kind_text(option) for option in schema.get("anyOf", [schema]) if option.get("type") != "null")
    default = "not given" if field.default in (None, {}) else f"`{json.dumps(field.default)}`"
    text = " ".join(inspect.cleandoc(field.description or "").split()).replace("``", "`")
    return f"### `{name}`\n\n{text}\n\n`--{name.replace('_', '-')}` · {kinds} · default: {default}\n"


def kind_text(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(f"`{choice}`" for choice in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "anyOf" in schema:
        return " or ".join(map(kind_text, schema["anyOf"]))
    if schema["type"] == "object":
        return f"names to values: {kind_text(schema['additionalProperties'])}"
    if schema["type"] == "array":
        return f"list: {kind_text(schema['items'])}"
    bounds = [text.format(f"{schema[key]:g}") for key, text in BOUNDS.items() if key in schema]
    return ", ".join([KINDS[schema["type"]], *bounds])


def preset_text(name: str) -> str:
    return f"### `{name}`\n\n```yaml\n{(PRESET_FOLDER / f'{name}.yaml').read_text(encoding='utf-8')}```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

"""Make docs/json.md and the JSON Schemas of what commands write for programs: ``python tools/output_reference.py``."""

import json
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from lorascope.cli import events, outputs
from lorascope.cli.plan_output import PlanOutput
from schema_tables import in_order, label, table

PAGE = Path(__file__).parents[1] / "docs" / "json.md"
FOLDER = Path(outputs.__file__).parent
OUTPUTS: dict[str, type[BaseModel]] = {
    "plan": PlanOutput,
    "rows": outputs.RowsOutput,
    "serve": outputs.ServeOutput,
    "export": outputs.ExportOutput,
    "push": outputs.PushOutput,
    "audit": outputs.AuditOutput,
    "skill": outputs.SkillOutput,
    "doctor": outputs.DoctorOutput,
}
"""By command; run and report write summary.json."""
HEAD = """# JSON output

Made from the program by `python tools/output_reference.py`; a test holds it current.

Every command takes `--json` and then writes one JSON object to standard output; messages go to standard error.
`lorascope run --json` and `lorascope report --json` write [summary.json](summary.md). A command that fails writes no
object, but a message to standard error and its [exit code](reference.md#exit-codes). `null` means that a number does
not exist. Fields may be added in any version. JSON Schemas ship with the package:
`lorascope/cli/outputs.schema.json`, with an object for each command in its definitions, and
`lorascope/cli/events.schema.json` for a line of `--json-events`.
"""
EVENTS = """## Events of a run

`lorascope run --json-events` writes each event to standard output as it happens, one JSON object a line, and nothing
else. The first line is `started` with the version of the format, which grows when a field changes its meaning or goes
away; events and fields may be added without. The last is `ended`, unless the program is killed. A command line that
cannot be parsed writes no events. Where a worker of `--executor process` is lost, its trials go on from
their last checkpoint, so that their later steps and evaluations come twice: the last ones count.

```text
{"event":"started","events_version":1,"lorascope_version":"0.2.0","command":"lorascope run --json-events"}
{"event":"study","folder":"studies/demo","model":"builtin:smollm2-135m","ranks":[8,128,256]}
{"event":"evaluation","trial_id":"r8","step":20,"loss":2.2971,"examples":24,"seconds":1.52}
{"event":"ended","state":"done","exit_code":0,"problem":null,"remedy":null}
```

The lines above are a selection.
"""


def outputs_schema() -> dict[str, Any]:
    """Make the JSON Schema of all objects, one for each command in its definitions."""
    _, found = models_json_schema(
        [(kind, "serialization") for kind in OUTPUTS.values()], title="Output of lorascope's commands with --json"
    )
    return found


def events_schema() -> dict[str, Any]:
    """Make the JSON Schema of a line."""
    return events.EVENT.json_schema(mode="serialization")


def page() -> str:
    """Make the reference page."""
    commands = outputs_schema()["$defs"]
    by_class = {kind.__name__: f"{command} --json" for command, kind in OUTPUTS.items()}
    names = in_order(commands, *by_class)
    tables = [table(by_class.get(name, label(name)), commands[name], commands) for name in names]
    return "\n".join([HEAD, *tables, EVENTS, *_event_tables(events_schema())])


def _event_tables(schema: dict[str, Any]) -> list[str]:
    parts = schema["$defs"]
    kinds = get_args(get_args(events.Event)[0])
    by_class = {kind.__name__: f"{kind.model_fields['event'].default} event" for kind in kinds}
    names = in_order(parts, *by_class)
    return [table(by_class.get(name, label(name)), parts[name], parts) for name in names]


def schema_text(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=1) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    (FOLDER / "outputs.schema.json").write_text(schema_text(outputs_schema()), encoding="utf-8")
    (FOLDER / "events.schema.json").write_text(schema_text(events_schema()), encoding="utf-8")

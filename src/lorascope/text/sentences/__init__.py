"""The English sentence of every message code; catalogs translate the sentences as they stand here.

Each TOML file beside this one holds sentences of a subject: ``[verdict]`` and ``adequate = "..."`` are the template of
the code ``verdict.adequate``, see ``lorascope.text.say`` for what may stand in its braces.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Plural:
    """A sentence that depends on a count. English has two forms, and no other language here has more than one."""

    one: str
    many: str
    count: str
    """Name of the value that decides."""


def _sentences() -> Iterator[tuple[str, str | Plural]]:
    for path in sorted(Path(__file__).parent.glob("*.toml")):
        for subject, entry in tomllib.loads(path.read_text(encoding="utf-8")).items():
            templates: dict[str, Any] = {subject: entry} if isinstance(entry, str) else entry
            for name, template in templates.items():
                code = subject if isinstance(entry, str) else f"{subject}.{name}"
                yield code, template if isinstance(template, str) else Plural(**template)


SENTENCES: dict[str, str | Plural] = dict(_sentences())
"""One template a code."""

"""``lorascope skill``: instructions for coding agents."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lorascope.atomic import write_whole

SKILL = Path(__file__).parent / "skills" / "lorascope" / "SKILL.md"


def skill(
    *,
    install: Annotated[Path | None, Parameter(name="--install")] = None,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Print the instructions that coding agents follow to answer which rank to use, or install them.

    Parameters
    ----------
    install
        Folder of the agent's skills, which gets lorascope/SKILL.md; an earlier version of the file is replaced.
    json
        Write the file's path as a JSON object.
    """
    text, path = SKILL.read_text(encoding="utf-8"), SKILL
    if install is not None:
        path = install / "lorascope" / SKILL.name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    if json:
        from lorascope.cli.outputs import SkillOutput

        print(SkillOutput(path=str(path)).model_dump_json(indent=2))  # noqa: T201
    else:
        print(text if install is None else path, end="" if install is None else "\n")  # noqa: T201
    return 0

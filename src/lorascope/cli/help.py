"""Help in two lengths: the flags that most studies need with examples, and all of them with --help-all."""

from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts.help import DefaultFormatter
from cyclopts.help.specs import ColumnSpec, NameRenderer, get_default_parameter_columns

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

ALL = "--help-all"
_COMMON = frozenset(
    {
        "--out", "--serve", "--model", "--dataset", "--ranks", "--target-modules", "--learning-rates", "--seeds",
        "--max-steps", "--time-budget", "--until-decided", "--tolerance", "--device", "--show", "--truncate", "--to",
    }
)  # fmt: skip
_NAMES_WIDTH = 32
"""Columns of the flags: the longest flag with its value's placeholder fits."""
_PRESETS = Path(__file__).parents[1] / "spec" / "presets"
_EXAMPLES = {
    "run": (
        "demo",
        "--model facebook/opt-350m --dataset rows.jsonl --ranks 8,64",
        "--dataset rows.jsonl --time-budget 1h --until-decided",
        "studies/demo --seeds 0,1,2 --out studies/three-seeds",
    ),
    "plan": ("opt-350m-codealpaca --device L4", "--model facebook/opt-350m --dataset rows.jsonl --ranks 8,64"),
    "rows": ("demo", "--model facebook/opt-350m --dataset rows.jsonl --show 5"),
    "audit": (
        "my-adapter --dataset held-out.jsonl",
        "studies/demo/adapters/r256",
        "my-adapter --truncate 8 --to my-adapter-r8",
    ),
}
WITH_STUDY = frozenset(_EXAMPLES) - {"audit"}
"""Commands that take a study."""
SHORTENED = frozenset(_EXAMPLES)
"""Commands with help in two lengths."""


def epilogue(command: str) -> str:
    """Return examples of a command, the presets if it takes a study, and how to see all flags."""
    presets = ", ".join(sorted(path.stem for path in _PRESETS.glob("*.yaml")))
    examples = [f"  lorascope {command} {arguments}" for arguments in _EXAMPLES[command]]
    known = (f"Presets: {presets}",) if command in WITH_STUDY else ()
    return "\n".join(("Examples:", *examples, *known, f"All flags: lorascope {command} {ALL}"))


def _columns(console: "Console", options: "ConsoleOptions", entries: "list[HelpEntry]") -> tuple[ColumnSpec, ...]:
    width = min(_NAMES_WIDTH, max(console.width // 2, 1))
    *before, _, description = get_default_parameter_columns(console, options, entries)
    names = ColumnSpec(renderer=NameRenderer(max_width=width), header="Option", style="cyclopts.name", max_width=width)
    return (*before, names, description)


def _shortened(entry: "HelpEntry") -> "HelpEntry":
    """Keep the first sentence of a description, and the default."""
    text = entry.description.primary_renderable.plain
    first, _, rest = text.partition(". ")
    if not rest:
        return entry
    default = rest[rest.rindex("[default:") :] if "[default:" in rest else ""
    return entry.copy(description=f"{first}. {default}".strip())


class StudyHelp(DefaultFormatter):
    """Formatter of a command with fields of a study as flags: the common ones, with one sentence each."""

    def __init__(self) -> None:
        super().__init__(column_specs=_columns)
        self.everything = False

    def __call__(self, console: "Console", options: "ConsoleOptions", panel: "HelpPanel") -> None:
        """Print one group of flags, if any of it is shown."""
        if not self.everything and panel.format == "parameter" and panel.title != "Arguments":
            panel = panel.copy(entries=[_shortened(entry) for entry in panel.entries if _COMMON & {*entry.names}])
        if panel.entries:
            super().__call__(console, options, panel)


STUDY_HELP = StudyHelp()
"""Formatter of all commands with help in two lengths."""

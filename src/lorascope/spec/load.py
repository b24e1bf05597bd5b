"""Loading of studies: file and flags to one StudySpec, with all errors reported at once."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from lorascope.errors import InputError, SpecError
from lorascope.spec.errors import did_you_mean, explain_errors
from lorascope.spec.peft_config import read_peft_config, with_peft_config
from lorascope.spec.peft_options import REFUSED, is_default
from lorascope.spec.schema import StudySpec

STUDY_FILE = "study.yaml"
"""The resolved study in a study's folder."""
PRESET_FOLDER = Path(__file__).parent / "presets"


def load_spec(path: Path | None, overrides: Mapping[str, object], peft_config: Path | None = None) -> StudySpec:
    """Read a study file and apply ``overrides`` and defaults.

    Args:
        path: a study file.
        overrides: fields that win over the file's.
        peft_config: a ``LoraConfig``, or the folder of an adapter, whose options fill in what neither says.

    Raises:
        SpecError: with all invalid fields.
        InputError: the file cannot be read.
    """
    given = {**(_read_mapping(path) if path else {}), **overrides}
    if peft_config is not None:
        given = with_peft_config(read_peft_config(peft_config), given)
    given = {name: value for name, value in given.items() if name not in REFUSED or not is_default(value)}
    return _validated(_with_budget_defaults(given))


def _with_budget_defaults(given: Mapping[str, object]) -> dict[str, object]:
    """Fill in what a time budget decides where nothing is given: learning rates, and how long the study goes on."""
    if given.get("time_budget") is None:
        return dict(given)
    found = {"learning_rates": "auto", **given}
    if "until_decided" not in given:
        probe = _validated({**found, "until_decided": False})
        found["until_decided"] = len(probe.ranks) > 1 and len(probe.seeds) == 1 and len(probe.target_sets) == 1
    return found


def with_changes(spec: StudySpec, changes: Mapping[str, object]) -> StudySpec:
    """Return the study with other values of some fields. Raises SpecError where they are invalid."""
    return _validated({**spec.model_dump(), **changes})


def _validated(given: Mapping[str, object]) -> StudySpec:
    try:
        return StudySpec.model_validate(given)
    except ValidationError as error:
        raise SpecError(explain_errors(given, error)) from None


def dump_spec(spec: StudySpec) -> str:
    """Return all fields as YAML, in the schema's order, for ``load_spec`` to read back."""
    return yaml.dump(
        spec.model_dump(mode="json"),
        Dumper=_EscapingDumper,
        sort_keys=False,
        allow_unicode=True,
        width=100,
        default_flow_style=None,
    )


class _EscapingDumper(yaml.SafeDumper):
    """Escapes Unicode's rarer line breaks, which YAML would read as "\\n"."""

    def ignore_aliases(self, data: object) -> bool:
        del data
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = '"' if any(mark in data for mark in "\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_EscapingDumper.add_representer(str, _EscapingDumper.represent_str)


def preset_names() -> tuple[str, ...]:
    """Return the names of the package's presets."""
    return tuple(sorted(path.stem for path in PRESET_FOLDER.glob("*.yaml")))


def find_study(name: str) -> Path:
    """Return the file of a preset, the resolved study in a study's folder, or else ``name`` as a path.

    Raises:
        InputError: a bare name is neither.
    """
    if name in preset_names():
        return PRESET_FOLDER / f"{name}.yaml"
    path = Path(name)
    if len(path.parts) == 1 and not path.suffix and not _exists(path):
        raise InputError(
            f"no preset or study file is called {name!r}",
            remedy=f"{did_you_mean(name, preset_names())}the presets are {', '.join(preset_names())}",
        )
    return path / STUDY_FILE if _exists(path / STUDY_FILE) else path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False  # the name is too long for a file


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses duplicate keys, of which PyYAML silently takes the last, and aliases."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # PyYAML's stubs leave it out
            # nested aliases grow exponentially ("billion laughs")
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not supported", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                mark = node.value[position][0].start_mark
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} is given twice", problem_mark=mark)
        return super().construct_mapping(node, deep)


def _read_mapping(path: Path) -> dict[str, object]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"there is no study file {path}", remedy="check the path, or name a preset") from None
    except IsADirectoryError:
        raise InputError(
            f"{path} is a folder, not a study file", remedy=f"give a YAML file, such as {path / 'study.yaml'}"
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", remedy="check the file's permissions") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text (byte {error.start})", remedy="save the file as UTF-8 encoded YAML"
        ) from None
    try:
        content = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506  # a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid YAML: {_yaml_problem(error)}", remedy="correct that line") from None
    if content is None:
        raise InputError(f"{path} is empty", remedy="write at least one field, such as ranks: [8, 128, 256]")
    if not isinstance(content, dict):
        raise InputError(
            f"{path} holds a {type(content).__name__}, not fields",
            remedy="write one field a line, such as ranks: [8, 128, 256]",
        )
    return {str(key): value for key, value in content.items()}


def _yaml_problem(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{error.problem} (line {mark.line + 1}, column {mark.column + 1})"
    return " ".join(str(error).split())

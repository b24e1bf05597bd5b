"""Command-line flags generated from the study schema, one per field."""

import dataclasses
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from lorascope.spec.fields.answer import AnswerFields
from lorascope.spec.fields.compute import ComputeFields
from lorascope.spec.fields.lora import LoraFields
from lorascope.spec.fields.rows import RowFields
from lorascope.spec.fields.training import TrainingFields
from lorascope.spec.fields.types import Fields
from lorascope.spec.peft_options import REFUSED
from lorascope.spec.schema import StudySpec

_SCHEMA: Mapping[str, Mapping[str, Any]] = StudySpec.model_json_schema()["properties"]
_NAMES_OR_EXPRESSION = frozenset({"target_modules", "exclude_modules", "layers_pattern"})
_REPEATED = frozenset({"dataset", "dataset_config", "split", "eval_split", "metrics", "lm_eval"})
"""Fields whose flag is given once for each data set, metric or benchmark: a path and a pattern may hold commas."""
_ALIASES = {"metrics": "--metric"}
"""Second names of flags."""
_SWITCHES = frozenset({"use_dora", "use_qalora", "use_bdlora", "lora_bias", "ensure_weight_tying"})
"""Refused options of PEFT that are true or false."""
_PEFT_CONFIG = (
    "A PEFT LoraConfig (JSON), or the folder of an adapter: its options are the study's where neither the study file "
    "nor a flag says otherwise. An adapter's weights are not used."
)
_SETS = frozenset({"target_modules"})
"""Fields whose flag is given once for each set of names."""
AUDITED = frozenset(
    {"model", "dataset", "dataset_config", "split", "eval_examples", "dataset_format", "columns", "prompt_template"}
    | {"completion_template", "template_date", "completion_only_loss", "max_length", "split_seed", "tolerance"}
    | {"forgetting_text", "samples", "max_new_tokens", "sample_temperature", "tokens_per_pass", "packing", "kernels"}
    | {"dtype", "quantize", "device", "trust_remote_code"}
)
"""Fields of a study by which ``lorascope audit`` evaluates an adapter."""
_AUDIT_HELP = {
    "model": "Base model, as in a study. Default: the one that the adapter names.",
    "dataset": "Rows that the adapter was not trained on, as in a study. Default, for an adapter in a study's folder: "
    "the study's held-out rows.",
    "eval_examples": "Number of rows, chosen by split_seed. Default: all, at most 256.",
    "tolerance": "A smaller rank is enough if the adapter truncated to it has a held-out loss higher by at most this, "
    "in nats per token. [default: 0.005]",
    "samples": "So many held-out prompts are answered by the base and by the adapter. Rows without a prompt are "
    "continued from their middle. [default: 8]",
}
"""Help of fields that mean less than in a study."""
_NAMES = re.compile(r"[\w.-]+(,[\w.-]+)*,?")


STUDY, DATA, LORA, TRAINING, ANSWER, MEASURING, COMPUTE = (
    Group(title, sort_key=place)
    for place, title in enumerate(("Study", "Data", "LoRA", "Training", "Answer", "Measuring", "Compute"))
)
"""Groups of flags in ``--help``."""
_GROUPS: Mapping[type[Fields], Group] = {
    RowFields: DATA,
    LoraFields: LORA,
    TrainingFields: TRAINING,
    AnswerFields: ANSWER,
    ComputeFields: COMPUTE,
}
_MEASURED = frozenset(
    {"cost", "truncation", "forgetting_text", "samples", "max_new_tokens", "sample_temperature"}
    | {"metrics", "lm_eval", "lm_eval_limit"}
)
_OTHER_GROUPS = {"model": STUDY, "report_to": STUDY} | dict.fromkeys(_MEASURED, MEASURING)
"""Fields that stand in another group than those of their class."""


def group_of(name: str) -> Group:
    """Return the group of a field's flag."""
    classes = (group for fields, group in _GROUPS.items() if name in fields.model_fields)
    return _OTHER_GROUPS.get(name) or next(classes)


def make_flags() -> type:
    """Make a dataclass with a field for each flag of a study; None means that the flag was not given."""
    fields = [_flag(name) for name in StudySpec.model_fields]
    # hidden, so that they are refused with their reason
    fields += [(name, _hidden(name), dataclasses.field(default=None)) for name in REFUSED]
    peft_config = Parameter(help=_PEFT_CONFIG, metavar="PATH", show_default=False, group=LORA)
    fields.append(("peft_config", Annotated[Path | None, peft_config], dataclasses.field(default=None)))
    return _dataclass("StudyFlags", fields)


def make_audit_flags() -> type:
    """Make a dataclass of the flags by which an adapter is evaluated."""
    named = [name for name in StudySpec.model_fields if name in AUDITED]
    return _dataclass("AuditFlags", [_flag(name, _AUDIT_HELP.get(name)) for name in named])


def _dataclass(name: str, fields: list[tuple[str, Any, Any]]) -> type:
    return dataclasses.make_dataclass(name, fields, namespace={"__module__": __name__}, frozen=True, kw_only=True)


def _flag(name: str, text: str | None = None) -> tuple[str, Any, Any]:
    """Return a field of a study as one of a dataclass of flags, with this help or the field's own."""
    types = _types(name)
    kind = bool | None if types == {"boolean"} else list[str] | None if name in _REPEATED | _SETS else str | None
    parameter = Parameter(
        help=text or help_text(name),
        metavar=_metavar(name),
        allow_leading_hyphen="array" in types and name not in _REPEATED | _SETS,
        show_default=False,
        negative_iterable="",
        alias=_ALIASES.get(name),
        group=group_of(name),
    )
    return name, Annotated[kind, parameter], dataclasses.field(default=None)


def _hidden(name: str) -> object:
    kind = bool if name in _SWITCHES else str
    return Annotated[kind | None, Parameter(show=False, allow_leading_hyphen=kind is str)]


def given_fields(flags: object | None) -> dict[str, object]:
    """Return the given flags as values for the schema, which validates them."""
    names = (*StudySpec.model_fields, *REFUSED)
    given = {name: value for name in names if (value := getattr(flags, name, None)) is not None}
    return {name: value if name in REFUSED else _parse(name, value) for name, value in given.items()}


def help_text(name: str) -> str:
    """Return a field's documentation on one line, with its choices and its default."""
    field = StudySpec.model_fields[name]
    text = " ".join(inspect.cleandoc(field.description or "").split()).replace("``", "")
    choices = _SCHEMA[name].get("enum")
    if choices:
        text += f" One of: {', '.join(choices)}."
    if field.default in (None, {}):
        return text
    default = field.default
    shown = ",".join(str(value) for value in default) if isinstance(default, tuple) else str(default)
    return f"{text} [default: {shown}]"


def _types(name: str) -> set[str]:
    """Return the JSON types of a field, without null."""
    options = [_SCHEMA[name]]
    while any("anyOf" in option for option in options):
        options = [inner for option in options for inner in option.get("anyOf", [option])]
    return {option["type"] for option in options} - {"null"}


def _metavar(name: str) -> str | None:
    """Return the placeholder for a flag's value in help; None for a switch."""
    types = {"string"} if name in _REPEATED else _types(name)
    names = {"array": "A,B,C", "integer": "N", "number": "X", "object": "NAME=X,NAME=X", "string": "TEXT"}
    return next((text for kind, text in names.items() if kind in types), None)


def _parse(name: str, value: str | bool | list[str]) -> object:
    if isinstance(value, list):
        values = [_list(name, one) for one in value] if name in _SETS else value
        return tuple(values) if len(values) > 1 else values[0]
    if isinstance(value, bool):
        return value
    types = _types(name)
    if name.endswith("_template"):
        # shells pass \n as two characters; a template means the line break
        return value.replace("\\n", "\n").replace("\\t", "\t")
    if types == {"string"} or (name == "learning_rates" and value == "auto"):
        return value
    if types == {"object"} or ("object" in types and "=" in value):
        return _mapping(name, value)
    return _list(name, value) if "array" in types else _number(value)


def _list(name: str, value: str) -> object:
    if name in _NAMES_OR_EXPRESSION:
        is_list = value != "all-linear" and _NAMES.fullmatch(value)
        return tuple(part for part in value.split(",") if part) if is_list else value
    if "number" in _types(name) and "," not in value:
        return _number(value)
    return tuple(_number(part.strip()) for part in value.split(","))


def _mapping(name: str, value: str) -> dict[str, object]:
    schema = _SCHEMA[name]
    is_text = any(one.get("additionalProperties", {}).get("type") == "string" for one in schema.get("anyOf", [schema]))
    pairs = (part.rpartition("=") for part in value.split(",") if part)
    return {key.strip(): text.strip() if is_text else _number(text.strip()) for key, _, text in pairs}


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text

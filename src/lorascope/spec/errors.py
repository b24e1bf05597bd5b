"""Validation errors of a study as problem, value and remedy, from pydantic's error details."""

import difflib
from collections.abc import Mapping, Sequence
from typing import get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lorascope.errors import InputError
from lorascope.spec.peft_options import REFUSED
from lorascope.spec.schema import StudySpec

_MOST_ERRORS = 40
_LONGEST_NAME = 40
"""Characters of a misspelt name that are compared with the known ones."""


def explain_errors(given: Mapping[str, object], error: ValidationError) -> list[InputError]:
    """Explain each invalid field, and then contradictions between the valid ones."""
    # pydantic reports a list of invalid items as too short as well
    details = [detail for detail in error.errors() if detail["type"] != "too_short" or not detail["input"]]
    # and a list of learning rates as not being the word auto
    details = [detail for detail in details if len(detail["loc"]) == 1 or detail["type"] != "literal_error"]
    found = {_path(detail): _explain(given, detail) for detail in details[:_MOST_ERRORS]}
    if len(details) > _MOST_ERRORS:
        found["..."] = InputError(f"{len(details) - _MOST_ERRORS} more fields are wrong", remedy="correct these first")
    wrong = {detail["loc"][0] for detail in details if detail["loc"]}
    try:
        StudySpec.model_validate({key: value for key, value in given.items() if key not in wrong})
    except ValidationError as rest:
        # a rule between fields may fail only because an invalid field was left out
        found |= {_path(d): _explain(given, d) for d in rest.errors() if not any(str(key) in d["msg"] for key in wrong)}
    return list(found.values())


_OTHER_NAMES = {"r": "ranks", "lr": "learning_rates", "epochs": "num_train_epochs"}
"""Names that PEFT and scripts have for fields, too short to be close to them."""


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return "did you mean ...? " for the closest known name, or empty text if none is close."""
    if name in _OTHER_NAMES and _OTHER_NAMES[name] in known:
        return f"did you mean {_OTHER_NAMES[name]}? "
    matches = difflib.get_close_matches(name[:_LONGEST_NAME], known, n=1)
    return f"did you mean {matches[0]}? " if matches else ""


def _path(detail: ErrorDetails) -> str:
    """Return the location of an error, such as ``ranks[1]``; a field of several types has a single one."""
    field, *rest = detail["loc"] or ("",)
    if field == "learning_rates":
        rest = [part for part in rest if not isinstance(part, str)]
    if any(isinstance(part, str) for part in rest):
        return str(field)
    return str(field) + "".join(f"[{part}]" for part in rest)


def _explain(given: Mapping[str, object], detail: ErrorDetails) -> InputError:
    path, message = _path(detail), detail["msg"][0].lower() + detail["msg"][1:]
    if not path or detail["type"] == "contradiction":
        return InputError(message, remedy=detail.get("ctx", {}).get("remedy", "give both, or neither"))
    if detail["type"] == "extra_forbidden":
        return _unknown_field(path)
    if path in _UNION_FIELDS:
        wanted, remedy = _UNION_FIELDS[path]
        return InputError(f"{path} is {_shown(given[path])}: neither {wanted}", remedy=remedy)
    if path.startswith("learning_rates") and isinstance(detail["input"], str):
        return InputError(
            f"{path} is {detail['input']!r}, not {'a list of numbers' if path == 'learning_rates' else 'a number'}",
            remedy="give numbers such as [1.0e-4, 3.0e-4, 1.0e-3], or the word auto alone",
        )
    return InputError(f"{path} is {_shown(detail['input'])}: {message}", remedy=_remedy(detail))


def _unknown_field(name: str) -> InputError:
    if name in REFUSED:
        return InputError(f"{name} is not supported: {REFUSED[name]}", remedy="leave it out")
    fields = tuple(StudySpec.model_fields)
    remedy = did_you_mean(name, fields).strip() or f"the fields are {', '.join(fields)}"
    return InputError(f"{name} is not a field of a study", remedy=remedy)


def _shown(given: object) -> str:
    """Format a value as in a study file, tuples as lists."""
    return repr(list(given) if isinstance(given, tuple) else given)


def _remedy(detail: ErrorDetails) -> str:
    kind, field = detail["type"], str(detail["loc"][0])
    if kind == "literal_error":
        choices = get_args(StudySpec.model_fields[field].annotation)
        return f"{did_you_mean(str(detail['input']), choices)}choose one of {', '.join(choices)}"
    default = StudySpec.model_fields[field].default
    shown = list(default) if isinstance(default, tuple) else default
    return _REMEDIES.get(kind, "correct it") + (f"; the default is {shown}" if shown not in (None, {}) else "")


_UNION_FIELDS = {
    "target_modules": (
        "a list of names, nor text, nor a list of these",
        "give a list of name endings such as [q_proj, v_proj], one regular expression, all-linear, or several of these",
    ),
    "exclude_modules": (
        "a list of names nor text",
        "give a list of name endings such as [o_proj], or one regular expression",
    ),
    "layers_pattern": ("a list of names nor text", "give the name of the list of blocks, such as layers"),
    "lora_alpha": (
        "a number above 0, nor a list of them, nor ranks with one each",
        "give one alpha such as 32, several to try such as 16,32, or one for each rank such as 8=16,64=32",
    ),
    "dataset": (
        "a name nor a list of names",
        "give names such as [mine.jsonl, trl-lib/Capybara]; split, dataset_config and mix are lists beside them",
    ),
    **{
        name: ("text nor a list of texts", f"give one for all data sets, or one for each, such as {example}")
        for name, example in (
            ("split", "[train, train_sft]"),
            ("eval_split", "[test, test_sft]"),
            ("dataset_config", "[default, main]"),
        )
    },
}
"""What fields of two types accept, and the remedy."""

_INTEGER, _NUMBER, _BOOLEAN = "give a whole number", "give a number", "write true or false"
_REMEDIES = {
    "int_type": _INTEGER,
    "int_parsing": _INTEGER,
    "int_from_float": _INTEGER,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": _NUMBER,
    "bool_type": _BOOLEAN,
    "bool_parsing": _BOOLEAN,
    "string_type": "give text",
    "string_too_short": "give text that is not empty",
    "tuple_type": "write a list",
    "too_short": "give at least one value",
    "size": "write a size such as 8GB or 7.5GiB",
    "duration": "write a time such as 90s, 20min or 1h30min",
    "dict_type": "give names with their values, such as {q_proj: 16}",
    "initialisation": "choose true, gaussian, pissa, pissa_niter_16 or olora",
    "duplicate": "give each value once",
    "greater_than": "give a larger number",
    "greater_than_equal": "give a larger number",
    "less_than": "give a smaller number",
    "less_than_equal": "give a smaller number",
}

"""What is wrong with a study, in words: pydantic's findings as problem, value and remedy."""

import difflib
from collections.abc import Mapping, Sequence
from typing import get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lorascope.errors import InputError
from lorascope.spec.schema import StudySpec

_MOST = 40
"""More errors than a person reads at once, and more signs than the name of a field has."""


def all_errors(given: Mapping[str, object], error: ValidationError) -> list[InputError]:
    """Explain each wrong field, then what is wrong between the fields that are right by themselves."""
    # Of a list whose items are wrong, pydantic says too that no item is left.
    details = [detail for detail in error.errors() if detail["type"] != "too_short" or not detail["input"]]
    # Of a list of learning rates, pydantic says too that it is not the word auto.
    details = [detail for detail in details if len(detail["loc"]) == 1 or detail["type"] != "literal_error"]
    found = {_path(detail): _explain(given, detail) for detail in details[:_MOST]}
    if len(details) > _MOST:
        found["..."] = InputError(f"{len(details) - _MOST} more fields are wrong", remedy="correct these first")
    wrong = {detail["loc"][0] for detail in details if detail["loc"]}
    try:
        StudySpec.model_validate({key: value for key, value in given.items() if key not in wrong})
    except ValidationError as rest:
        # A rule between fields may only fail because a wrong field was left out; then it says nothing new.
        found |= {_path(d): _explain(given, d) for d in rest.errors() if not any(str(key) in d["msg"] for key in wrong)}
    return list(found.values())


def closest(name: str, known: Sequence[str]) -> str:
    """Return "did you mean ...? " for the nearest known name, or nothing where none is near."""
    matches = difflib.get_close_matches(name[:_MOST], known, n=1)
    return f"did you mean {matches[0]}? " if matches else ""


def _path(detail: ErrorDetails) -> str:
    """Write where an error is, as ``ranks[1]``; a field that may be one of several types has one error as a whole."""
    field, *rest = detail["loc"] or ("",)
    if field == "learning_rates":
        rest = [part for part in rest if not isinstance(part, str)]
    if any(isinstance(part, str) for part in rest):
        return str(field)
    return str(field) + "".join(f"[{part}]" for part in rest)


def _explain(given: Mapping[str, object], detail: ErrorDetails) -> InputError:
    path, message = _path(detail), detail["msg"][0].lower() + detail["msg"][1:]
    if not path:
        return InputError(message, remedy=detail.get("ctx", {}).get("remedy", "give both, or neither"))
    if detail["type"] == "extra_forbidden":
        fields = tuple(StudySpec.model_fields)
        return InputError(
            f"{path} is not a field of a study",
            remedy=closest(path, fields).strip() or f"the fields are {', '.join(fields)}",
        )
    if path in _EITHER:
        wanted, remedy = _EITHER[path]
        return InputError(f"{path} is {_shown(given[path])}: neither {wanted}", remedy=remedy)
    if path.startswith("learning_rates") and isinstance(detail["input"], str):
        return InputError(
            f"{path} is {detail['input']!r}, not {'a list of numbers' if path == 'learning_rates' else 'a number'}",
            remedy="give numbers such as [1.0e-4, 3.0e-4, 1.0e-3], or the word auto alone",
        )
    return InputError(f"{path} is {_shown(detail['input'])}: {message}", remedy=_remedy(detail))


def _shown(given: object) -> str:
    """Write a list as a study file does, whatever held it."""
    return repr(list(given) if isinstance(given, tuple) else given)


def _remedy(detail: ErrorDetails) -> str:
    kind, field = detail["type"], str(detail["loc"][0])
    if kind == "literal_error":
        choices = get_args(StudySpec.model_fields[field].annotation)
        return f"{closest(str(detail['input']), choices)}choose one of {', '.join(choices)}"
    default = StudySpec.model_fields[field].default
    shown = list(default) if isinstance(default, tuple) else default
    return _REMEDIES.get(kind, "correct it") + (f"; the default is {shown}" if shown is not None else "")


_EITHER = {
    "target_modules": (
        "a list of names nor text",
        "give a list of name endings such as [q_proj, v_proj], one regular expression, or all-linear",
    ),
    "lora_alpha": (
        "a number above 0 nor a list of them",
        "give one alpha for all ranks, such as 32, or one for each rank, such as 16,32,64",
    ),
}
"""Of fields that may be one of two things: what was wanted, and the remedy."""

_WHOLE, _NUMBER, _SWITCH = "give a whole number", "give a number", "write true or false"
_REMEDIES = {
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": _NUMBER,
    "bool_type": _SWITCH,
    "bool_parsing": _SWITCH,
    "string_type": "give text",
    "string_too_short": "give text that is not empty",
    "tuple_type": "write a list",
    "too_short": "give at least one value",
    "size": "write a size such as 8GB or 7.5GiB",
    "duplicate": "give each value once",
    "greater_than": "give a larger number",
    "greater_than_equal": "give a larger number",
    "less_than": "give a smaller number",
    "less_than_equal": "give a smaller number",
}

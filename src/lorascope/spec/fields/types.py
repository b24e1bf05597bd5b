"""Types of fields, and the checks that they share."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from lorascope.units import parse_bytes, parse_seconds

Values = TypeVar("Values", tuple[int, ...], tuple[float, ...], tuple[str, ...])


def no_duplicates(values: Values) -> Values:
    """Refuse a list that names a value twice."""
    repeated = sorted({value for value in values if values.count(value) > 1})
    if repeated:
        raise PydanticCustomError("duplicate", "{repeated} given more than once", {"repeated": str(repeated)})
    return values


def _is_size(value: object) -> object:
    try:
        n_bytes = parse_bytes(value) if isinstance(value, str) else None
    except ValueError:
        n_bytes = None
    if not n_bytes:
        raise PydanticCustomError("size", "a size is a number above 0 with its unit", {})
    return value


def _is_duration(value: object) -> object:
    try:
        seconds = parse_seconds(value) if isinstance(value, str) else 0.0
    except ValueError:
        seconds = 0.0
    if not seconds:
        raise PydanticCustomError("duration", "a time is a number above 0 with its unit: s, min or h", {})
    return value


Count = Annotated[int, Field(ge=1, strict=True)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonEmpty = Annotated[str, Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
Size = Annotated[str, BeforeValidator(_is_size)]
Duration = Annotated[str, BeforeValidator(_is_duration)]


class Fields(BaseModel):
    """A part of a study's fields; the text under a field is its only documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def contradiction(problem: str, remedy: str) -> PydanticCustomError:
    """Return the error of fields that contradict each other."""
    return PydanticCustomError("contradiction", "{problem}", {"problem": problem, "remedy": remedy})


def count_values(count: int) -> str:
    """Return "1 value" or "3 values"."""
    return "1 value" if count == 1 else f"{count} values"

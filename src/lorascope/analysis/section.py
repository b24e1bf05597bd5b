"""Base class of the sections of summary.json."""

from pydantic import BaseModel, ConfigDict

Interval = tuple[float, float]


class Section(BaseModel):
    """A frozen section, documented by the text under each field; refuses NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

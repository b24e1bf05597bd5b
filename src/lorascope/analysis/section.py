"""What all parts of summary.json have in common."""

from pydantic import BaseModel, ConfigDict

Interval = tuple[float, float]


class Section(BaseModel):
    """Frozen, with the texts under the fields as their documentation, and without NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

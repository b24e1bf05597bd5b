"""A sentence that depends on a count."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Plural:
    """English has two forms, and no other language here has more than one."""

    one: str
    many: str
    count: str
    """Name of the value that decides: a count, or a list, whose length does."""

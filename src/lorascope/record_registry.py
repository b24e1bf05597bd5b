"""Registry of record types: a class declares with ``@record`` how the store keeps it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Storage:
    """Table, identity and order of one record type."""

    table: str
    key: tuple[str, ...] | None
    """Fields that identify a record; a later record of the same key replaces it. Empty: the store holds one record.

    None: every record is kept."""
    ordered: bool
    """True: read in the order of writing. False: read by ascending key."""


RECORD_TYPES: dict[type, Storage] = {}
"""Every record type that has been declared."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def record(table: str, *, key: tuple[str, ...] | None = None, ordered: bool = False) -> Callable[[type[T]], type[T]]:
    """Make a class a frozen dataclass that the store keeps in ``table``; its type hints become the columns.

    See ``Storage`` for ``key`` and ``ordered``; without a key records are always ordered.
    """

    def register(cls: type[T]) -> type[T]:
        kind = dataclass(frozen=True, kw_only=True, slots=True)(cls)
        RECORD_TYPES[kind] = Storage(table=table, key=key, ordered=ordered or key is None)
        return kind

    return register

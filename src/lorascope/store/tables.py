"""SQL tables of the record types: a column has the name of its field, the field's type gives the rest."""

import dataclasses
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Generic, Protocol, TypeVar, get_type_hints

from lorascope.record_registry import RECORD_TYPES, Storage
from lorascope.store import columns  # noqa: F401 - declares the record of step blocks
from lorascope.store.codec import Codec, SqlValue, checksum, codec_of

CHECKSUM = "checksum"
"""A further column of every table: SQLite itself notices no flipped bit in a number."""


class Record(Protocol):
    """A dataclass declared with ``@record``."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


R = TypeVar("R", bound=Record)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RecordTable(Generic[R]):
    """One table of records, and the SQL to make, write and read it."""

    kind: type[R]
    name: str
    codecs: Mapping[str, Codec]
    create_sql: str
    insert_sql: str
    """Writes one row and replaces the row of the same key."""
    select_sql: str
    """Reads all rows; a condition and an order may be appended."""
    order_sql: str
    """The order in which records are read."""

    def encode(self, record: R) -> tuple[SqlValue, ...]:
        """Turn a record into a row."""
        values = tuple(codec.encode(getattr(record, field)) for field, codec in self.codecs.items())
        return (*values, checksum(values))

    def decode(self, row: Iterable[SqlValue]) -> R:
        """Turn a row into a record.

        Raises:
            ValueError: the row is not the one that was written.
        """
        *values, known = row
        if known != checksum(values):
            raise ValueError(f"a row of the table {self.name} does not match its checksum")
        pairs = zip(self.codecs.items(), values, strict=True)
        return self.kind(**{field: codec.decode(value) for (field, codec), value in pairs})


def table_of(kind: type[R]) -> RecordTable[R]:
    """Return the table of a record type."""
    return _TABLES[kind]


def _make_table(kind: type[R], storage: Storage) -> RecordTable[R]:
    hints = get_type_hints(kind, include_extras=True)
    codecs = {field.name: codec_of(hints[field.name]) for field in dataclasses.fields(kind)}
    written = _names((*codecs, CHECKSUM))
    marks = ", ".join("?" * (len(codecs) + 1))
    order = ("number",) if storage.ordered else storage.key
    return RecordTable(
        kind=kind,
        name=storage.table,
        codecs=codecs,
        create_sql=_create_sql(storage, codecs),
        insert_sql=f"INSERT OR REPLACE INTO {storage.table} ({written}) VALUES ({marks})",  # noqa: S608 - own names
        select_sql=f"SELECT {written} FROM {storage.table}",  # noqa: S608 - own names
        order_sql=f"ORDER BY {_names(order)}" if order else "",
    )


def _create_sql(storage: Storage, codecs: Mapping[str, Codec]) -> str:
    parts = ["number INTEGER PRIMARY KEY AUTOINCREMENT"] if storage.ordered else []
    parts += [f'"{field}" {c.affinity}{"" if c.nullable else " NOT NULL"}' for field, c in codecs.items()]
    parts.append(f"{CHECKSUM} INTEGER NOT NULL")
    if storage.key == ():
        parts.append("only INTEGER NOT NULL DEFAULT 1 UNIQUE CHECK (only = 1)")
    elif storage.key:
        parts.append(f"{'UNIQUE' if storage.ordered else 'PRIMARY KEY'} ({_names(storage.key)})")
    # Small rows are read faster by key from the index itself; SQLite advises against it for large ones.
    small = storage.key and not storage.ordered and all(codec.affinity != "BLOB" for codec in codecs.values())
    return f"CREATE TABLE {storage.table} ({', '.join(parts)}){' WITHOUT ROWID' if small else ''}"


def _names(fields: Iterable[str]) -> str:
    # Quoted, because a field such as "commit" may be a word of SQL.
    return ", ".join(f'"{field}"' for field in fields)


_TABLES: dict[type, RecordTable[Any]] = {kind: _make_table(kind, storage) for kind, storage in RECORD_TYPES.items()}

SCHEMA = tuple(table.create_sql for table in _TABLES.values())
SCHEMA_VERSION = zlib.crc32("\n".join(SCHEMA).encode()) & 0x7FFFFFFF
"""Stored in the file: stores with other tables or columns have another version. SQLite keeps 31 bits."""

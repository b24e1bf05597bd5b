"""Open the SQLite file of a store: create it, verify it, and refuse files that are damaged or not its own."""

import contextlib
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from lorascope import __version__
from lorascope.errors import InputError
from lorascope.store.tables import SCHEMA, SCHEMA_VERSION

APPLICATION_ID = 0x4C6F5261
"""Marks a SQLite file as a study store ("LoRa")."""
WAIT_SECONDS = 10.0
_TRANSIENT = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
}
"""Errors of the disk or of other programs that hold the file; they say nothing about its content."""
_DECODING_ERRORS = (AssertionError, KeyError, OverflowError, RecursionError, TypeError, ValueError, struct.error)
"""Errors that decoding a damaged row raises."""


def connect_writer(path: Path) -> sqlite3.Connection:
    """Open a new or existing store for writing. Raises InputError."""
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent}", remedy="make the folder, or give another one")
    connection = _connect(path, mode="rwc")
    try:
        with damage_as_input_error(path):
            is_new = _is_unclaimed(connection)
            if not is_new:
                _refuse_foreign(connection, path)
            _verify(connection)
            # Without shared memory (some network drives) SQLite keeps its rollback journal.
            with contextlib.suppress(sqlite3.OperationalError):
                connection.execute("PRAGMA journal_mode = WAL")
            # After a power loss the store must hold every step that a checkpoint on disk counts.
            connection.execute("PRAGMA synchronous = FULL")
            if is_new:
                _create_tables(connection)
    except (InputError, sqlite3.Error):
        connection.close()
        raise
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open an existing store so that nothing can be written.

    Raises:
        InputError: it is missing, no store, damaged, or of another version.
    """
    if not path.is_file():
        raise InputError(f"there is no study store at {path}", remedy="give the folder of a study that has started")
    connection = _connect(path, mode="ro")
    try:
        with damage_as_input_error(path):
            _refuse_foreign(connection, path)
    except (InputError, sqlite3.Error):
        connection.close()
        raise
    return connection


def verify_store(path: Path) -> None:
    """Verify the structure of the whole file; rows are verified when they are read. Raises InputError."""
    with contextlib.closing(_connect(path, mode="ro")) as connection, damage_as_input_error(path):
        _verify(connection)


def _verify(connection: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError where the structure of the file is damaged."""
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(found)


@contextlib.contextmanager
def damage_as_input_error(path: Path) -> Iterator[None]:
    """Turn the errors of SQLite and of the codecs for a damaged file into an InputError with the remedy."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise  # a record that breaks a constraint, or a bug of ours
    except (sqlite3.DatabaseError, *_DECODING_ERRORS) as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and code & 0xFF in _TRANSIENT:
            raise
        raise _damaged(path, error) from error


def disconnect_writer(connection: sqlite3.Connection) -> None:
    """Close and, where no reader holds it open, leave one plain file without companions."""
    with contextlib.suppress(sqlite3.DatabaseError):  # damage was reported when it was found
        connection.execute("PRAGMA busy_timeout = 0")
        connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()


def _connect(path: Path, *, mode: str) -> sqlite3.Connection:
    address = f"file:{quote(str(path.absolute()))}?mode={mode}"
    try:
        return _open_checked(address)
    except sqlite3.OperationalError as error:
        companion = path.with_name(path.name + "-wal")
        # A store left in WAL mode on a read-only disk: its companion files cannot be made, and no process can write.
        if mode == "ro" and not companion.exists() and "unable to open" in str(error):
            return _open_checked(address + "&immutable=1")
        raise InputError(f"cannot open {path}: {error}", remedy="check the path and its permissions") from error
    except sqlite3.DatabaseError as error:
        foreign = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_NOTADB
        raise (_not_a_store(path) if foreign else _damaged(path, error)) from error


def _open_checked(address: str) -> sqlite3.Connection:
    connection = sqlite3.connect(address, uri=True, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _create_tables(connection: sqlite3.Connection) -> None:
    """Create all tables in one transaction or none."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _is_unclaimed(connection):  # no other process was faster
            for statement in SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except sqlite3.Error:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _is_unclaimed(connection: sqlite3.Connection) -> bool:
    """Return True for a database without tables that no program has marked as its own."""
    counts = _number(connection, "SELECT count(*) FROM sqlite_schema"), _number(connection, "PRAGMA application_id")
    return counts == (0, 0)


def _refuse_foreign(connection: sqlite3.Connection, path: Path) -> None:
    if _number(connection, "PRAGMA application_id") != APPLICATION_ID:
        raise _not_a_store(path)
    if _number(connection, "PRAGMA user_version") != SCHEMA_VERSION:
        writer = _writer_of(connection)
        raise InputError(
            f"{path} was written by another version of lorascope"
            f" ({f'{writer}, ' if writer else ''}this is {__version__}), which stores other records",
            remedy=f"read it with {f'lorascope {writer}' if writer else 'the version that wrote it'},"
            " or start the study anew with --out",
        )


def _number(connection: sqlite3.Connection, sql: str) -> int:
    number: int = connection.execute(sql).fetchone()[0]
    return number


def _writer_of(connection: sqlite3.Connection) -> str | None:
    """Return the version of lorascope that wrote the store, if its last environment says so."""
    try:
        query = "SELECT lorascope_version FROM environments ORDER BY number DESC LIMIT 1"
        row = connection.execute(query).fetchone()
    except sqlite3.Error:
        row = None
    return str(row[0]) if row else None


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} is damaged: {' '.join(str(error).split())}",
        remedy="bring it back from a copy of the study's folder, or start the study anew with --out",
    )


def _not_a_store(path: Path) -> InputError:
    return InputError(f"{path} is not a study store", remedy="give a folder that `lorascope run` made")

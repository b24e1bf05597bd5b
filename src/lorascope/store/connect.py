"""Opening the file: who may open it, how, and what is refused."""

import contextlib
import sqlite3
from pathlib import Path
from urllib.parse import quote

from lorascope.errors import InputError
from lorascope.store.migrations import APPLICATION_ID, MIGRATIONS, application, migrate, version

WAIT_SECONDS = 10.0


def connect_writer(path: Path) -> sqlite3.Connection:
    """Open a new or existing store for writing, brought to this version. Raises InputError."""
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent}", remedy="make the folder, or give another one")
    connection = _connect(path, mode="rwc")
    try:
        _refuse_foreign(connection, path, new_allowed=True)
        # Where shared memory does not work (some network drives), SQLite answers with the journal it kept.
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode = WAL")
        # A checkpoint on disk must never know more steps than the store does after a power loss.
        connection.execute("PRAGMA synchronous = FULL")
        if version(connection) < len(MIGRATIONS):
            migrate(connection)
    except (InputError, sqlite3.Error):
        connection.close()
        raise
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open an existing store so that nothing can be written. Raises InputError."""
    if not path.is_file():
        raise InputError(f"there is no study store at {path}", remedy="give the folder of a study that has started")
    connection = _connect(path, mode="ro")
    try:
        _refuse_foreign(connection, path, new_allowed=False)
    except InputError:
        connection.close()
        raise
    if version(connection) == len(MIGRATIONS):
        return connection
    connection.close()
    connect_writer(path).close()
    return _connect(path, mode="ro")


def disconnect_writer(connection: sqlite3.Connection) -> None:
    """Close and, where no reader holds it open, leave one plain file without companions."""
    with contextlib.suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA busy_timeout = 0")
        connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()


def _connect(path: Path, *, mode: str) -> sqlite3.Connection:
    address = f"file:{quote(str(path.absolute()))}?mode={mode}"
    try:
        return _probed(address)
    except sqlite3.OperationalError as error:
        companion = path.with_name(path.name + "-wal")
        # A store left in WAL mode on a read-only disk: its companion files cannot be made, and nobody can be writing.
        if mode == "ro" and not companion.exists() and "unable to open" in str(error):
            return _probed(address + "&immutable=1")
        raise InputError(f"cannot open {path}: {error}", remedy="check the path and its permissions") from error
    except sqlite3.DatabaseError as error:
        raise _not_a_store(path) from error


def _probed(address: str) -> sqlite3.Connection:
    connection = sqlite3.connect(address, uri=True, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _refuse_foreign(connection: sqlite3.Connection, path: Path, *, new_allowed: bool) -> None:
    empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if new_allowed and empty and application(connection) == 0:
        return
    if application(connection) != APPLICATION_ID:
        raise _not_a_store(path)
    if version(connection) > len(MIGRATIONS):
        raise InputError(
            f"{path} was written by a newer lorascope (store version {version(connection)}, "
            f"this one reads up to {len(MIGRATIONS)})",
            remedy="upgrade lorascope",
        )


def _not_a_store(path: Path) -> InputError:
    return InputError(f"{path} is not a study store", remedy="give a folder that `lorascope run` made")

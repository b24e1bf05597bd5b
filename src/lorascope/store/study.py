"""StudyStore: write and read the records of one study by their type."""

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from lorascope.records import StepRecord, TrialOutcome
from lorascope.store import columns
from lorascope.store.codec import SqlValue
from lorascope.store.columns import StepBlock, StepColumns
from lorascope.store.connection import connect_reader, connect_writer, damage_as_input_error, disconnect_writer
from lorascope.store.tables import R, Record, table_of


class StudyStore:
    """One study's records. Every write is one transaction; any thread may call."""

    def __init__(self, connection: sqlite3.Connection, path: Path, *, writable: bool) -> None:
        self._path = path
        self._connection = connection
        self._writable = writable
        self._lock = threading.Lock()

    @classmethod
    def create(cls, path: Path) -> Self:
        """Open for writing, new or existing. Raises InputError for a file that is something else or damaged."""
        return cls(connect_writer(path), path, writable=True)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open for reading. Raises InputError when missing, not a store, or of another version."""
        return cls(connect_reader(path), path, writable=False)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        with self._lock:
            if self._writable:
                self._writable = False
                disconnect_writer(self._connection)
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def put(self, record: Record) -> None:
        """Write a record; see ``put_all``."""
        self.put_all([record])

    def put_all(self, records: Iterable[Record]) -> None:
        """Write records, all or none; where their type has a key, one of the same key is replaced.

        A long trial that ended gets a block of its steps; a new step deletes its trial's block.
        """
        records = list(records)
        rows = [(table.insert_sql, table.encode(record)) for record in records for table in [table_of(type(record))]]
        stepped = {record.trial_id for record in records if isinstance(record, StepRecord)}
        with self._transaction() as connection:
            for sql, row in rows:
                connection.execute(sql, row)
            connection.executemany(columns.DROP_BLOCK, [(trial_id,) for trial_id in stepped])
        for record in records:
            if isinstance(record, TrialOutcome) and record.state != "running":
                self._keep_block(record.trial_id)

    def read(self, kind: type[R], **values: SqlValue) -> list[R]:
        """Read the records of a type whose fields have the given values, in the order that the type declares."""
        condition = " AND ".join(f'"{field}" = ?' for field in values)
        codecs = table_of(kind).codecs
        arguments = [codecs[field].encode(value) for field, value in values.items()]
        return self._select(kind, f"WHERE {condition}" if values else "", *arguments)

    def read_one(self, kind: type[R], **values: SqlValue) -> R | None:
        """Read the first of these records; None where there is none."""
        return next(iter(self.read(kind, **values)), None)

    def outcomes(self) -> dict[str, TrialOutcome]:
        """Read how each trial stands, by trial id; a trial that never began has none."""
        return {outcome.trial_id: outcome for outcome in self.read(TrialOutcome)}

    def truncate_after(self, trial_ids: Iterable[str], step: int) -> None:
        """Delete the trials' steps and evaluations beyond ``step``, for a resume from its checkpoint."""
        keys = [(trial_id, step) for trial_id in trial_ids]
        with self._transaction() as connection:
            connection.executemany(columns.DROP_BLOCK, [(trial_id,) for trial_id, _ in keys])
            connection.executemany("DELETE FROM steps WHERE trial_id = ? AND step > ?", keys)
            connection.executemany("DELETE FROM evaluations WHERE trial_id = ? AND step > ?", keys)

    def count_steps(self, trial_id: str, last: int) -> int:
        """Count a trial's steps up to ``last``."""
        with self._lock, damage_as_input_error(self._path):
            query = "SELECT count(*) FROM steps WHERE trial_id = ? AND step BETWEEN 1 AND ?"
            number: int = self._connection.execute(query, (trial_id, last)).fetchone()[0]
        return number

    def step_columns(self, trial_id: str) -> StepColumns:
        """Read the columns of a trial's steps that summaries and charts need, in order.

        The steps of a trial that ended are verified by their checksums. For a very long trial that has not ended they
        are not, as verifying each step would take most of a report's time.
        """
        block = self.read_one(StepBlock, trial_id=trial_id)
        with self._lock, damage_as_input_error(self._path):
            if block is not None:
                return StepColumns.of_bytes(block.columns)
            if self._connection.execute(columns.IS_LONG, (trial_id,)).fetchone() is not None:
                return StepColumns.of_rows(self._connection.execute(columns.SELECT, (trial_id,)))
        return StepColumns.of_records(self.read(StepRecord, trial_id=trial_id))

    def _keep_block(self, trial_id: str) -> None:
        """Also keep the steps of a long trial as one block."""
        with self._lock, damage_as_input_error(self._path):
            if self._connection.execute(columns.IS_LONG, (trial_id,)).fetchone() is None:
                return
            data = StepColumns.of_rows(self._connection.execute(columns.SELECT, (trial_id,))).to_bytes()
        self.put(StepBlock(trial_id=trial_id, columns=data))

    def _select(self, kind: type[R], condition: str, *arguments: SqlValue, order: str | None = None) -> list[R]:
        table = table_of(kind)
        with self._lock, damage_as_input_error(self._path):
            sql = f"{table.select_sql} {condition} {order or table.order_sql}"
            return [table.decode(row) for row in self._connection.execute(sql, arguments).fetchall()]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, damage_as_input_error(self._path):
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

"""StudyStore: typed append and read of exactly the records that cross the border."""

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from lorascope.records import (
    AdapterRecord,
    CostRecord,
    Environment,
    EvalRecord,
    ForgettingRecord,
    GpuSample,
    MachineRates,
    PredictionRecord,
    ResolvedStudy,
    SoloRun,
    SpectrumRecord,
    StepRecord,
    SystemSample,
    TrialOutcome,
    TrialRecord,
    TruncationRecord,
)
from lorascope.store import columns, tables
from lorascope.store.codec import SqlValue, checksum
from lorascope.store.columns import StepColumns
from lorascope.store.connection import connect_reader, connect_writer, damage_is_clear, disconnect_writer
from lorascope.store.tables import R, RecordTable


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
        """Open for reading. Raises InputError when missing, not a store, or of a newer version."""
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

    def put_resolved(self, resolved: ResolvedStudy) -> None:
        """Write what the study is, in place of what was written before."""
        self._write(tables.RESOLVED, [resolved])

    def put_environment(self, environment: Environment) -> None:
        """Append where a process runs; one row for each start."""
        self._write(tables.ENVIRONMENTS, [environment])

    def put_trials(self, trials: Sequence[TrialRecord]) -> None:
        """Write the plan; a trial of the same id is replaced."""
        self._write(tables.TRIALS, trials)

    def put_adapter(self, adapter: AdapterRecord) -> None:
        """Write the size of a rank's adapter, in place of the one before."""
        self._write(tables.ADAPTERS, [adapter])

    def put_cost(self, cost: CostRecord) -> None:
        """Write what a rank costs alone, in place of the measurement before."""
        self._write(tables.COSTS, [cost])

    def put_outcome(self, outcome: TrialOutcome) -> None:
        """Write how a trial stands, in place of how it stood."""
        self.put_outcomes([outcome])

    def put_outcomes(self, outcomes: Sequence[TrialOutcome]) -> None:
        """Write how several trials stand, all or none; of those that ended, long ones get a block of their steps."""
        self._write(tables.OUTCOMES, outcomes)
        for outcome in outcomes:
            if outcome.state != "running":
                self._keep_block(outcome.trial_id)

    def append_steps(self, steps: Sequence[StepRecord]) -> None:
        """Append steps; the same step of the same trial is replaced."""
        with self._transaction() as connection:
            connection.executemany(tables.STEPS.insert_sql, map(tables.STEPS.encode, steps))
            connection.executemany(columns.DROP_BLOCK, [(trial_id,) for trial_id in {step.trial_id for step in steps}])

    def append_evaluations(self, evaluations: Sequence[EvalRecord]) -> None:
        """Append evaluations; one after the same step of the same trial is replaced."""
        self._write(tables.EVALUATIONS, evaluations)

    def append_samples(self, samples: Sequence[SystemSample]) -> None:
        """Append readings of the process."""
        self._write(tables.SAMPLES, samples)

    def append_spectra(self, spectra: Sequence[SpectrumRecord]) -> None:
        """Append the spectra of an adapter's layers, in their order; one of the same trial and layer is replaced."""
        self._write(tables.SPECTRA, spectra)

    def append_truncation(self, truncation: TruncationRecord) -> None:
        """Append the evaluation of a cut adapter, in place of the one of the same trial and rank."""
        self._write(tables.TRUNCATIONS, [truncation])

    def append_forgetting(self, forgetting: ForgettingRecord) -> None:
        """Append a trial's loss on the generic text, in place of the one before."""
        self._write(tables.FORGETTING, [forgetting])

    def put_predictions(self, predictions: Sequence[PredictionRecord]) -> None:
        """Write what was predicted, in place of what was predicted of the same things before."""
        self._write(tables.PREDICTIONS, predictions)

    def put_solo_run(self, turn: SoloRun) -> None:
        """Write one turn of a rank alone, in place of the same one before."""
        self._write(tables.SOLO_RUNS, [turn])

    def put_machine_rates(self, rates: MachineRates) -> None:
        """Write what the device can do, in place of what was measured before."""
        self._write(tables.MACHINE_RATES, [rates])

    def append_gpu_samples(self, samples: Sequence[GpuSample]) -> None:
        """Append readings of GPUs."""
        self._write(tables.GPU_SAMPLES, samples)

    def truncate_after(self, trial_ids: Iterable[str], step: int) -> None:
        """Delete the trials' steps and evaluations beyond ``step``, for a resume from its checkpoint."""
        keys = [(trial_id, step) for trial_id in trial_ids]
        with self._transaction() as connection:
            connection.executemany(columns.DROP_BLOCK, [(trial_id,) for trial_id, _ in keys])
            connection.executemany("DELETE FROM steps WHERE trial_id = ? AND step > ?", keys)
            connection.executemany("DELETE FROM evaluations WHERE trial_id = ? AND step > ?", keys)

    def count_steps(self, trial_id: str, last: int) -> int:
        """Count a trial's steps up to ``last``."""
        with self._lock, damage_is_clear(self._path):
            query = "SELECT count(*) FROM steps WHERE trial_id = ? AND step BETWEEN 1 AND ?"
            number: int = self._connection.execute(query, (trial_id, last)).fetchone()[0]
        return number

    def resolved(self) -> ResolvedStudy | None:
        """Read what the study is; None before it was written."""
        rows = self._read(tables.RESOLVED)
        return rows[0] if rows else None

    def environments(self) -> list[Environment]:
        """Read the environments of all starts, first to last."""
        return self._read(tables.ENVIRONMENTS, "ORDER BY number")

    def trials(self) -> list[TrialRecord]:
        """Read the plan in the order it was written."""
        return self._read(tables.TRIALS, "ORDER BY number")

    def outcomes(self) -> dict[str, TrialOutcome]:
        """Read how each trial stands, by trial id; a trial that never began has none."""
        return {outcome.trial_id: outcome for outcome in self._read(tables.OUTCOMES, "ORDER BY trial_id")}

    def adapters(self) -> list[AdapterRecord]:
        """Read the adapters' sizes by ascending rank."""
        return self._read(tables.ADAPTERS, "ORDER BY rank")

    def costs(self) -> list[CostRecord]:
        """Read the solo measurements by ascending rank."""
        return self._read(tables.COSTS, "ORDER BY rank")

    def solo_runs(self) -> list[SoloRun]:
        """Read the turns of the ranks alone in the order they were taken."""
        return self._read(tables.SOLO_RUNS, "ORDER BY number")

    def machine_rates(self) -> MachineRates | None:
        """Read what the device can do; None before it was measured."""
        rows = self._read(tables.MACHINE_RATES)
        return rows[0] if rows else None

    def gpu_samples(self) -> list[GpuSample]:
        """Read the readings of GPUs in the order they were written."""
        return self._read(tables.GPU_SAMPLES, "ORDER BY number")

    def steps(self, trial_id: str) -> list[StepRecord]:
        """Read a trial's steps in order."""
        return self._read(tables.STEPS, "WHERE trial_id = ? ORDER BY step", trial_id)

    def step_columns(self, trial_id: str) -> StepColumns:
        """Read of a trial's steps what summaries and charts need, in order.

        Of a very long trial that has not ended the checksums of single steps are not verified, which would take most
        of a report's time; of one that ended, the checksum of all.
        """
        with self._lock, damage_is_clear(self._path):
            block = self._connection.execute(columns.GET_BLOCK, (trial_id,)).fetchone()
            if block is not None:
                data, known = block
                if checksum((trial_id, data)) != known:
                    raise ValueError(f"the steps of {trial_id} do not match their checksum")
                return StepColumns.of_bytes(data)
            long = self._connection.execute(columns.IS_LONG, (trial_id,)).fetchone() is not None
            if long:
                return StepColumns.of_rows(self._connection.execute(columns.SELECT, (trial_id,)))
        return StepColumns.of_records(self.steps(trial_id))

    def evaluations(self, trial_id: str) -> list[EvalRecord]:
        """Read a trial's evaluations in order."""
        return self._read(tables.EVALUATIONS, "WHERE trial_id = ? ORDER BY step", trial_id)

    def samples(self) -> list[SystemSample]:
        """Read the readings of the process in the order they were written."""
        return self._read(tables.SAMPLES, "ORDER BY number")

    def spectra(self) -> list[SpectrumRecord]:
        """Read the spectra of all examined trials, layers in their order."""
        return self._read(tables.SPECTRA, "ORDER BY number")

    def truncations(self) -> list[TruncationRecord]:
        """Read the evaluations of cut adapters by trial and ascending rank."""
        return self._read(tables.TRUNCATIONS, "ORDER BY trial_id, rank")

    def forgetting(self) -> dict[str, ForgettingRecord]:
        """Read the losses on the generic text by trial id; the base model's is under the empty name."""
        return {record.trial_id: record for record in self._read(tables.FORGETTING, "ORDER BY trial_id")}

    def predictions(self) -> list[PredictionRecord]:
        """Read what was predicted, single ranks first and ascending."""
        return self._read(tables.PREDICTIONS, "ORDER BY what, rank")

    def _write(self, table: RecordTable[R], records: Sequence[R]) -> None:
        rows = [table.encode(record) for record in records]
        with self._transaction() as connection:
            connection.executemany(table.insert_sql, rows)

    def _keep_block(self, trial_id: str) -> None:
        """Keep the steps of a long trial once more, as one block."""
        with self._lock, damage_is_clear(self._path):
            if self._connection.execute(columns.IS_LONG, (trial_id,)).fetchone() is None:
                return
            data = StepColumns.of_rows(self._connection.execute(columns.SELECT, (trial_id,))).to_bytes()
        with self._transaction() as connection:
            connection.execute(columns.PUT_BLOCK, (trial_id, data, checksum((trial_id, data))))

    def _read(self, table: RecordTable[R], ending: str = "", *arguments: SqlValue) -> list[R]:
        with self._lock, damage_is_clear(self._path):
            rows = self._connection.execute(f"{table.select_sql} {ending}", arguments).fetchall()
            return [table.decode(row) for row in rows]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, damage_is_clear(self._path):
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

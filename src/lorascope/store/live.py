"""Live reads: a study's newest records and its long series, thinned in SQL, while a run writes them."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from lorascope.records import EvalRecord, GpuSample, StepRecord, SystemSample
from lorascope.store.study import StudyStore
from lorascope.store.tables import table_of

_LARGEST = "1.7976931348623157e308"
_STEPS = f"""SELECT max(step), max(step), sum(nats), sum(target_tokens), min(nats / target_tokens),
    max(nats / target_tokens) FROM steps
    WHERE trial_id = ? AND step > ? AND typeof(nats) = 'real' AND abs(nats) <= {_LARGEST} AND target_tokens > 0
    GROUP BY step / ? ORDER BY 1"""  # noqa: S608 - a number
_SAMPLES = """SELECT max(number), max(seconds), sum({0}), count({0}), min({0}), max({0}) FROM samples
    WHERE number > ? AND {0} IS NOT NULL GROUP BY number / ? ORDER BY 1"""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Neighbouring rows of a series as one point."""

    position: int
    """Of the last row: its step, or its number."""
    x: float
    """Horizontal value of the last row: its step, or seconds."""
    total: float
    """Sum of the values times their weights: nats, or bytes."""
    weight: float
    """Sum of the weights: target tokens, or a count."""
    low: float
    """Lowest value."""
    high: float
    """Highest value."""

    @property
    def mean(self) -> float:
        """Return the weighted mean of the values."""
        return self.total / self.weight


def is_uninitialized(path: Path) -> bool:
    """Return True if the file is an SQLite database without tables yet, as a store is for a moment at its start."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)) as connection:
            n_tables: int = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            return n_tables == 0
    except sqlite3.Error:
        return False


class LiveStore(StudyStore):
    """A read-only store, opened for a moment while a run writes it.

    Open it, read, close it: a reader that stays open keeps SQLite from checkpointing its write-ahead log.
    """

    @contextmanager
    def read_transaction(self) -> Iterator[None]:
        """Let all reads in this block see the same state; the writer is not blocked."""
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("COMMIT")

    def count_other_records(self) -> int:
        """Count the records that do not come from training steps: costs, spectra, truncations, forgetting."""
        parts = ("solo_runs", "spectra", "truncations", "forgetting")
        return sum(self._number(f"SELECT count(*) FROM {name}") for name in parts)  # noqa: S608 - own names

    def last_step(self, trial_id: str) -> int:
        """Return a trial's last recorded step; 0 before the first."""
        return self._number("SELECT coalesce(max(step), 0) FROM steps WHERE trial_id = ?", trial_id)

    def last_evaluation(self, trial_id: str) -> EvalRecord | None:
        """Return a trial's last evaluation; None before the first."""
        found = self._select(EvalRecord, "WHERE trial_id = ?", trial_id, order="ORDER BY step DESC LIMIT 1")
        return found[0] if found else None

    def last_sample(self) -> SystemSample | None:
        """Return the newest reading of the process; None before the first."""
        found = self._select(SystemSample, "", order="ORDER BY number DESC LIMIT 1")
        return found[0] if found else None

    def last_sample_number(self) -> int:
        """Return the number of the newest reading of the process; 0 before the first."""
        return self._number("SELECT coalesce(max(number), 0) FROM samples")

    def last_gpu_samples(self) -> list[GpuSample]:
        """Return the newest reading of every GPU; empty without one."""
        newest = "WHERE number IN (SELECT max(number) FROM gpu_samples GROUP BY uuid)"
        return self._select(GpuSample, newest, order="ORDER BY uuid")

    def step_buckets(self, trial_id: str, after: int, size: int) -> list[Bucket]:
        """Join every ``size`` of a trial's steps after step ``after``; steps without a finite loss are left out."""
        return self._buckets(_STEPS, trial_id, after, size)

    def sample_buckets(self, column: str, after: int, size: int) -> list[Bucket]:
        """Join every ``size`` readings of one column of the samples after number ``after``."""
        assert column in table_of(SystemSample).codecs
        return self._buckets(_SAMPLES.format(column), after, size)

    def evaluations_after(self, trial_id: str, step: int) -> list[EvalRecord]:
        """Read a trial's evaluations after a step."""
        return self._select(EvalRecord, "WHERE trial_id = ? AND step > ?", trial_id, step)

    def steps_after(self, trial_id: str, step: int) -> list[StepRecord]:
        """Read a trial's steps after a step."""
        return self._select(StepRecord, "WHERE trial_id = ? AND step > ?", trial_id, step)

    def samples_from(self, place: int) -> list[SystemSample]:
        """Read the readings of the process from a place on, counted from 0."""
        return self._select(SystemSample, "", place, order="ORDER BY number LIMIT -1 OFFSET ?")

    def gpu_samples_from(self, seconds: float) -> list[GpuSample]:
        """Read the readings of GPUs in the whole run, those of solo runs left out, from a moment on."""
        return self._select(GpuSample, "WHERE rank IS NULL AND seconds >= ?", seconds)

    def _buckets(self, sql: str, *arguments: str | int) -> list[Bucket]:
        with self._lock:
            return [Bucket(*row) for row in self._connection.execute(sql, arguments)]

    def _number(self, sql: str, *arguments: str) -> int:
        with self._lock:
            number: int = self._connection.execute(sql, arguments).fetchone()[0]
        return number

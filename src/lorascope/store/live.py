"""Read a study's records while they are written: what is new, in as few rows as a page can show."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from lorascope.records import EvalRecord, GpuSample, SystemSample
from lorascope.store.study import StudyStore
from lorascope.store.tables import table_of

_LARGEST = "1.7976931348623157e308"
_STEPS = f"""SELECT max(step), max(step), sum(nats), sum(target_tokens), min(nats / target_tokens),
    max(nats / target_tokens) FROM steps
    WHERE trial_id = ? AND step > ? AND typeof(nats) = 'real' AND abs(nats) <= {_LARGEST} AND target_tokens > 0
    GROUP BY step / ? ORDER BY 1"""  # noqa: S608 - a number
_SAMPLES = """SELECT max(number), max(seconds), sum({0}), count({0}), min({0}), max({0}) FROM samples
    WHERE number > ? AND {0} IS NOT NULL GROUP BY number / ? ORDER BY 1"""
_RECENT_STEPS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Bucket:
    """Neighbouring rows as one point."""

    position: int
    """Of the last row: its step, or its number."""
    x: float
    """Where it stands on a chart: the step, or seconds."""
    total: float
    """Sum of the values times their weights: nats, or bytes."""
    weight: float
    """Sum of the weights: target tokens, or a count."""
    low: float
    """Lowest value in it."""
    high: float
    """Highest value in it."""


def is_being_made(path: Path) -> bool:
    """Say whether a store was begun a moment ago and has no tables yet; any other file is no store in the making."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)) as connection:
            tables_there: int = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            return tables_there == 0
    except sqlite3.Error:
        return False


class LiveStore(StudyStore):
    """A store that is opened for a moment, beside the run that writes it.

    Open it, read, close it: a reader that stays would keep SQLite's log from being taken over into the file.
    """

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all reads within see the same moment; the writer is not held up."""
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("COMMIT")

    def starts(self) -> int:
        """Count how often the study was started or continued."""
        return self._number("SELECT count(*) FROM environments")

    def examined(self) -> int:
        """Count the records that are no part of training: costs, spectra, cuts, losses on the generic text."""
        parts = ("costs", "solo_runs", "spectra", "truncations", "forgetting")
        return sum(self._number(f"SELECT count(*) FROM {name}") for name in parts)  # noqa: S608 - own names

    def last_step(self, trial_id: str) -> int:
        """Return a trial's last recorded step; 0 before the first."""
        return self._number("SELECT coalesce(max(step), 0) FROM steps WHERE trial_id = ?", trial_id)

    def last_evaluation(self, trial_id: str) -> int:
        """Return the step of a trial's last evaluation; -1 before the first."""
        return self._number("SELECT coalesce(max(step), -1) FROM evaluations WHERE trial_id = ?", trial_id)

    def last_sample(self) -> tuple[int, SystemSample] | None:
        """Return the newest reading of the process with its number; None before the first."""
        found = self._select(SystemSample, "", order="ORDER BY number DESC LIMIT 1")
        return (self._number("SELECT max(number) FROM samples"), found[0]) if found else None

    def last_gpu_samples(self) -> list[GpuSample]:
        """Read the newest reading of every GPU; empty without one."""
        newest = "WHERE number IN (SELECT max(number) FROM gpu_samples GROUP BY uuid)"
        return self._select(GpuSample, newest, order="ORDER BY uuid")

    def step_buckets(self, trial_id: str, *, after: int, size: int) -> list[Bucket]:
        """Join every ``size`` of a trial's steps behind ``after``; steps without a finite loss are left out."""
        return self._buckets(_STEPS, trial_id, after, size)

    def sample_buckets(self, column: str, *, after: int, size: int) -> list[Bucket]:
        """Join every ``size`` readings of one column of the samples behind number ``after``."""
        assert column in table_of(SystemSample).codecs
        return self._buckets(_SAMPLES.format(column), after, size)

    def evaluations_after(self, trial_id: str, step: int) -> list[EvalRecord]:
        """Read a trial's evaluations behind a step."""
        return self._select(EvalRecord, "WHERE trial_id = ? AND step > ?", trial_id, step)

    def recent_step_seconds(self, trial_id: str) -> float | None:
        """Average the wall time of the trial's last steps; None while there is none but warm-up."""
        newest = "SELECT seconds FROM steps WHERE trial_id = ? AND warmup = 0 ORDER BY step DESC LIMIT ?"
        with self._lock:
            row = self._connection.execute(
                f"SELECT avg(seconds) FROM ({newest})",  # noqa: S608 - own words
                (trial_id, _RECENT_STEPS),
            ).fetchone()
        return float(row[0]) if row[0] is not None else None

    def _buckets(self, sql: str, *arguments: str | int) -> list[Bucket]:
        with self._lock:
            rows = self._connection.execute(sql, arguments).fetchall()
        names = ("position", "x", "total", "weight", "low", "high")
        return [Bucket(**dict(zip(names, row, strict=True))) for row in rows]

    def _number(self, sql: str, *arguments: str) -> int:
        with self._lock:
            number: int = self._connection.execute(sql, arguments).fetchone()[0]
        return number

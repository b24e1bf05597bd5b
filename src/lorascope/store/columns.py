"""Columns of a trial's steps: a study of a million steps is read in a second, without a record for each step.

When a long trial ends, the store also keeps its steps as one block with one checksum: reading a row for each step
would take most of a report's time.

Shapes: T steps.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lorascope.record_registry import record
from lorascope.records import StepRecord

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

IS_LONG = "SELECT 1 FROM steps WHERE trial_id = ? LIMIT 1 OFFSET 5000"
"""Finds a row where a trial has more steps than are read and verified one by one."""
DROP_BLOCK = "DELETE FROM step_blocks WHERE trial_id = ?"
# A value that SQLite cannot hold is stored as its eight bytes (see codec.py): NaN, which becomes infinity here because
# readers only ask whether a loss is finite, and -0.0, which becomes 0.
SELECT = """SELECT step,
    CASE typeof(nats) WHEN 'blob' THEN CASE nats WHEN x'0000000000000080' THEN 0.0 ELSE 9e999 END ELSE nats END,
    target_tokens, tokens, CAST(learning_rate AS REAL),
    CASE typeof(grad_norm) WHEN 'blob' THEN 9e999 ELSE grad_norm END, CAST(seconds AS REAL), warmup, "group"
    FROM steps WHERE trial_id = ? ORDER BY step"""


_LAYOUT = np.dtype([
    ("step", "<i8"), ("nats", "<f8"), ("target_tokens", "<i8"), ("tokens", "<i8"), ("learning_rate", "<f8"),
    ("grad_norm", "<f8"), ("seconds", "<f8"), ("warmup", "?"), ("group", "<i8"),
])  # fmt: skip
_FIELDS = tuple(_LAYOUT.names or ())


@record("step_blocks", key=("trial_id",))
class StepBlock:
    """All steps of a long trial that ended."""

    trial_id: str
    columns: bytes
    """Of ``StepColumns.to_bytes``."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StepColumns:
    """The steps of one trial, ascending."""

    step: Ints
    """[T]"""
    nats: Floats
    """[T], not finite where a loss was not."""
    target_tokens: Ints
    """[T]"""
    tokens: Ints
    """[T]"""
    learning_rate: Floats
    """[T]"""
    grad_norm: Floats
    """[T], not finite where a gradient was not."""
    seconds: Floats
    """[T], wall time of the trial group's step."""
    warmup: Bools
    """[T]"""
    group: Ints
    """[T]"""

    @classmethod
    def of_rows(cls, rows: Iterable[tuple[float, ...]]) -> Self:
        """Build from rows of the fields in their order."""
        return cls._of_table(np.fromiter(rows, _LAYOUT))

    @classmethod
    def of_records(cls, records: Iterable[StepRecord]) -> Self:
        """Build from records of one trial, in their order."""
        return cls.of_rows(tuple(getattr(record, name) for name in _FIELDS) for record in records)

    @classmethod
    def of_bytes(cls, data: bytes) -> Self:
        """Decode the bytes of ``to_bytes``. Raises ValueError for a length that is no whole number of steps."""
        return cls._of_table(np.frombuffer(data, _LAYOUT))

    @classmethod
    def _of_table(cls, table: NDArray[np.void]) -> Self:
        return cls(**{name: np.ascontiguousarray(table[name]) for name in _FIELDS})

    def to_bytes(self) -> bytes:
        """Return the steps one after the other, packed and little endian."""
        table = np.empty(len(self), _LAYOUT)
        for name in _FIELDS:
            table[name] = getattr(self, name)
        return table.tobytes()

    def __len__(self) -> int:
        return len(self.step)

    def until(self, step: int) -> Self:
        """Keep the steps up to and including ``step``."""
        return self.where(self.step <= step)

    def where(self, kept: Bools) -> Self:
        """Keep the steps that are True in ``kept`` [T]."""
        return replace(self, **{name: getattr(self, name)[kept] for name in _FIELDS})

    @property
    def finite(self) -> Self:
        """The steps whose loss is finite."""
        return self.where(np.isfinite(self.nats))

    @property
    def with_loss(self) -> Self:
        """The steps that have a finite loss a token."""
        return self.where(np.isfinite(self.nats) & (self.target_tokens > 0))

    @property
    def losses(self) -> Floats:
        """Nats a token of each step, [T]; every step must have target tokens."""
        return self.nats / self.target_tokens

"""Columns of a trial's steps: a study of a million steps is read in a second, without a record for each step.

When a long trial ends, the store also keeps its steps as one block with one checksum: reading a row for each step
would take most of a report's time.

Shapes: T steps.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from itertools import chain

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
    target_tokens, tokens, CAST(seconds AS REAL), warmup
    FROM steps WHERE trial_id = ? ORDER BY step"""


@record("step_blocks", key=("trial_id",))
class StepBlock:
    """All steps of a long trial that ended."""

    trial_id: str
    data: bytes
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
    seconds: Floats
    """[T], wall time of the trial group's step."""
    warmup: Bools
    """[T]"""

    @classmethod
    def of_rows(cls, rows: Iterable[tuple[float, ...]]) -> "StepColumns":
        """Build from rows of the fields in their order; integers are exact up to 2^53."""
        table = np.fromiter(chain.from_iterable(rows), dtype=np.float64).reshape(-1, 6)
        step, target_tokens, tokens = (table[:, place].astype(np.int64) for place in (0, 2, 3))
        nats, seconds = table[:, 1].copy(), table[:, 4].copy()
        warmup = table[:, 5] != 0
        return cls(step=step, nats=nats, target_tokens=target_tokens, tokens=tokens, seconds=seconds, warmup=warmup)

    @classmethod
    def of_records(cls, records: Iterable[StepRecord]) -> "StepColumns":
        """Build from records of one trial, in their order."""
        return cls.of_rows((r.step, r.nats, r.target_tokens, r.tokens, r.seconds, r.warmup) for r in records)

    @classmethod
    def of_bytes(cls, data: bytes) -> "StepColumns":
        """Decode the bytes of ``to_bytes``. Raises ValueError for a length that is no whole number of steps."""
        width = 5 * 8 + 1
        n_steps, odd = divmod(len(data), width)
        if odd:
            raise ValueError(f"{len(data)} bytes are no columns of {width} bytes a step")
        types = ("<i8", "<f8", "<i8", "<i8", "<f8")
        step, nats, target_tokens, tokens, seconds = (
            np.frombuffer(data, dtype, n_steps, 8 * n_steps * place) for place, dtype in enumerate(types)
        )
        warmup = np.frombuffer(data, np.bool_, n_steps, 8 * n_steps * len(types))
        return cls(step=step, nats=nats, target_tokens=target_tokens, tokens=tokens, seconds=seconds, warmup=warmup)

    def to_bytes(self) -> bytes:
        """Return the columns one after the other, little endian: 41 bytes a step."""
        whole = (self.step, self.nats, self.target_tokens, self.tokens, self.seconds)
        return b"".join(
            (*(column.astype(column.dtype.newbyteorder("<")).tobytes() for column in whole), self.warmup.tobytes())
        )

    def __len__(self) -> int:
        return len(self.step)

    def until(self, step: int) -> "StepColumns":
        """Keep the steps up to and including ``step``."""
        return self.where(self.step <= step)

    def where(self, kept: Bools) -> "StepColumns":
        """Keep the steps that are True in ``kept`` [T]."""
        return StepColumns(**{field.name: getattr(self, field.name)[kept] for field in fields(self)})

    @property
    def finite(self) -> "StepColumns":
        """The steps whose loss is finite."""
        return self.where(np.isfinite(self.nats))

    @property
    def with_loss(self) -> "StepColumns":
        """The steps that have a finite loss a token."""
        return self.where(np.isfinite(self.nats) & (self.target_tokens > 0))

    @property
    def losses(self) -> Floats:
        """Nats a token of each step, [T]; every step must have target tokens."""
        return self.nats / self.target_tokens

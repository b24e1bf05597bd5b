"""Which record lives in which table; a column has the name of its field."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Generic, Protocol, TypeVar, get_type_hints

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
from lorascope.store.codec import BY_TYPE, INT32_ARRAY, PLAIN, Codec, SqlValue, checksum

CHECKSUM = "checksum"
"""A further column of every table: SQLite itself notices no flipped bit in a number."""


class _Record(Protocol):
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


R = TypeVar("R", bound=_Record)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RecordTable(Generic[R]):
    """One table of records."""

    name: str
    make: Callable[..., R]
    codecs: Mapping[str, Codec]

    @property
    def insert_sql(self) -> str:
        """Statement that writes one row and replaces the row of the same key."""
        marks = ", ".join("?" for _ in (*self.codecs, CHECKSUM))
        return f"INSERT OR REPLACE INTO {self.name} ({self._columns}) VALUES ({marks})"  # noqa: S608 - own names

    @property
    def select_sql(self) -> str:
        """Statement that reads all rows, to which a condition and an order may be appended."""
        return f"SELECT {self._columns} FROM {self.name}"  # noqa: S608 - own names

    @property
    def _columns(self) -> str:
        # Quoted, because a field such as "commit" may be a word of SQL.
        return ", ".join(f'"{field}"' for field in (*self.codecs, CHECKSUM))

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
        # rows of the versions before had no checksum
        if known is not None and known != checksum(values):
            raise ValueError(f"a row of the table {self.name} does not match its checksum")
        pairs = zip(self.codecs.items(), values, strict=True)
        return self.make(**{field: codec.decode(value) for (field, codec), value in pairs})


def _table(name: str, record: type[R], **special: Codec) -> RecordTable[R]:
    hints = get_type_hints(record)
    fields = [field.name for field in dataclasses.fields(record)]
    codecs = {field: special.get(field) or BY_TYPE.get(hints[field], PLAIN) for field in fields}
    return RecordTable(name=name, make=record, codecs=codecs)


RESOLVED = _table("facts", ResolvedStudy)
ENVIRONMENTS = _table("environments", Environment)
TRIALS = _table("trials", TrialRecord)
OUTCOMES = _table("outcomes", TrialOutcome)
ADAPTERS = _table("adapters", AdapterRecord)
COSTS = _table("costs", CostRecord)
STEPS = _table("steps", StepRecord)
EVALUATIONS = _table("evaluations", EvalRecord, example_target_tokens=INT32_ARRAY)
SAMPLES = _table("samples", SystemSample)
SPECTRA = _table("spectra", SpectrumRecord)
TRUNCATIONS = _table("truncations", TruncationRecord, example_target_tokens=INT32_ARRAY)
FORGETTING = _table("forgetting", ForgettingRecord, window_target_tokens=INT32_ARRAY)
PREDICTIONS = _table("predictions", PredictionRecord)
SOLO_RUNS = _table("cost_turns", SoloRun)
MACHINE_RATES = _table("machine_rates", MachineRates)
GPU_SAMPLES = _table("gpu_samples", GpuSample)

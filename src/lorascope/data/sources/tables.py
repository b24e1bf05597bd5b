"""Rows of Arrow tables: Parquet files, saved folders and the hub, read through ``datasets``.

Such a file gives every row all keys that any row has. Keys that are null in a row are therefore left out of its nested
objects, as in TRL; columns of the type ``Json`` are read as they were written.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

import pyarrow as pa
from datasets import Dataset, Features
from datasets.features.features import LargeList, List
from datasets.table import InMemoryTable
from pyarrow.parquet import read_table

from lorascope.data.sources.problems import UnusableError
from lorascope.data.sources.rows import Chosen, Row, Rows

_BATCH = 1000


def read_parquet(path: Path) -> Rows:
    """Read a Parquet file."""
    try:
        return rows_of_dataset(str(path), Dataset(InMemoryTable(read_table(path))))
    except pa.ArrowException as error:
        problem = f" is not a readable Parquet file: {error}"
        raise UnusableError(problem, "the file may be truncated: copy or download it again") from error


def rows_of_dataset(name: str, dataset: Dataset) -> Rows:
    """Return the rows of a table."""

    def read(chosen: Chosen) -> Iterator[Row]:
        table = dataset if chosen is None else dataset.select(chosen)
        for batch in table.iter(_BATCH):
            for cells in zip(*batch.values(), strict=True):
                yield without_nulls(dict(zip(batch, cells, strict=True)), dataset.features)

    return Rows(
        name=name,
        columns=tuple(dataset.column_names),
        count=len(dataset),
        read=read,
        hash_content=lambda: _hash_table(dataset),
    )


def without_nulls(row: Row, features: Features | None) -> Row:
    """Leave null keys out of a row's nested objects. Without features nothing is known to be ``Json``."""
    return {name: _present(cell, (features or {}).get(name, {})) for name, cell in row.items()}


def _present(value: object, feature: object) -> object:
    if isinstance(value, dict) and isinstance(feature, Mapping):
        return {key: _present(inner, feature.get(key, {})) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        if isinstance(feature, List | LargeList):
            return [_present(inner, feature.feature) for inner in value]
        if isinstance(feature, Mapping):
            return [_present(inner, feature) for inner in value]
    return value


class _HashSink:
    """A file that hashes what is written to it."""

    closed = False

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return len(data)

    def flush(self) -> None:
        """Nothing waits."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.closed = True


def _hash_table(dataset: Dataset) -> str:
    sink = _HashSink()
    for batch in dataset.with_format("arrow").iter(_BATCH):
        # Arrow's stream format holds the cells alone, not the buffers of which they may be slices
        with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), batch.schema) as stream:
            stream.write_table(batch.combine_chunks())
    return sink.digest.hexdigest()

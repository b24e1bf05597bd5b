"""Data files by their suffix: JSON, JSON Lines, CSV and Parquet, those of text compressed too."""

from collections.abc import Callable
from pathlib import Path

from lorascope.data.sources.csv_files import read_csv
from lorascope.data.sources.json_files import read_json, read_jsonl
from lorascope.data.sources.problems import FILL, UnusableError, named
from lorascope.data.sources.rows import Rows
from lorascope.data.sources.tables import read_parquet
from lorascope.spec.fields.rows import COMPRESSED_SUFFIXES, FILE_SUFFIXES, data_suffix

READERS: dict[str, Callable[[Path], Rows]] = dict(
    zip(FILE_SUFFIXES, (read_json, read_jsonl, read_csv, read_csv, read_parquet), strict=True)
)


def read_file(path: Path) -> Rows:
    """Read a file in the format of its suffix.

    Raises:
        InputError: the file is not a table of rows; the message says where.
    """
    with named(path):
        reader = READERS.get(data_suffix(path))
        if reader is None:
            known = f"{', '.join(READERS)}, text also with {', '.join(COMPRESSED_SUFFIXES)} behind it"
            raise UnusableError(f" ends in {path.suffix!r}", f"give a file that ends in one of {known}")
        if path.stat().st_size == 0:
            raise UnusableError(" is empty (0 bytes)", FILL)
        rows = reader(path)
        if len(rows) == 0:
            raise UnusableError(" holds no rows", FILL)
        return rows

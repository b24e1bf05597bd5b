"""Opening of data files, and errors about them with the file's name and the place in it."""

import bz2
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from lorascope.errors import InputError

FILL = "give a file with rows in it"


class UnusableError(Exception):
    """Why a file is no table of rows: the continuation of "data file NAME", and the remedy."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.remedy = remedy


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Raise the InputError of this file in place of an UnusableError, OSError or ValueError."""
    try:
        yield
    except UnusableError as error:
        raise InputError(f"data file {str(path)!r}{error}", remedy=error.remedy) from error
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise InputError(
            f"data file {str(path)!r} cannot be read: {error}", remedy="check the path, the file and its permissions"
        ) from error


def open_bytes(path: Path) -> io.BufferedReader:
    """Open a file, decompressed as its suffix says."""
    match path.suffix.lower():
        case ".gz":
            return io.BufferedReader(gzip.open(path))
        case ".bz2":
            return io.BufferedReader(bz2.open(path))
        case ".zst":
            return io.BufferedReader(pa.input_stream(str(path), compression="zstd"))
    return path.open("rb")


def open_text(path: Path) -> io.TextIOWrapper:
    """Open a file of UTF-8 text, decompressed, with its line ends as they are and without a byte order mark."""
    return io.TextIOWrapper(open_bytes(path), encoding="utf-8-sig", newline="")


def read_text(path: Path) -> str:
    """Read a whole file as UTF-8. Raises UnusableError with the byte that is not, or for nothing but white space."""
    with open_bytes(path) as file:
        data = file.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = f" is not UTF-8: byte {data[error.start]:#04x} at offset {error.start}, line {line}"
        raise UnusableError(problem, "save the file as UTF-8") from error
    if not text.strip():
        raise UnusableError(" holds nothing but white space", FILL)
    return text


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

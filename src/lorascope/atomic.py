"""Atomic writes: a file or folder appears under its name complete, or not at all, also after a power loss."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident


def partial_path(path: Path, *, derived: bool = False) -> Path:
    """Return where a file or folder is written before it gets its name; see ``new_file`` for ``derived``."""
    writer = f".{os.getpid()}-{get_ident()}" if derived else ""
    return path.with_name(f".{path.name}{writer}.partial")


@contextmanager
def new_file(path: Path, *, derived: bool = False) -> Iterator[Path]:
    """Yield a path to write to; the file takes its name, in place of one before, where the block succeeds.

    Args:
        path: in a folder that exists.
        derived: it can be made again. Several threads and processes may then write it at once, and the disk is not
            waited for.

    Raises:
        OSError: it cannot be written; the file before is as it was.
    """
    aside = partial_path(path, derived=derived)
    try:
        yield aside
        if not derived:
            with aside.open("rb+") as file:
                os.fsync(file.fileno())
        aside.replace(path)
        if not derived:
            sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


@contextmanager
def new_folder(path: Path, *, replace: bool = False, derived: bool = False) -> Iterator[Path]:
    """Yield an empty folder to fill; it takes its name where the block succeeds.

    Args:
        path: parents are made.
        replace: remove a folder of that name first. False: one that is not empty is an error.
        derived: as for ``new_file``.

    Raises:
        OSError: it cannot be written, or the name is taken.
    """
    aside = partial_path(path, derived=derived)
    shutil.rmtree(aside, ignore_errors=True)  # a kill leaves files there
    aside.mkdir(parents=True)
    try:
        yield aside
        if replace:
            shutil.rmtree(path, ignore_errors=True)
        aside.rename(path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_whole(path: Path, content: str | bytes, *, derived: bool = False) -> None:
    """Write a file, text as UTF-8, in place of the one before; see ``new_file``."""
    with new_file(path, derived=derived) as aside:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to disk, where the system can."""
    with contextlib.suppress(OSError):  # Windows opens no folders, and some network drives sync none
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)

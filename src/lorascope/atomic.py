"""Files that are there whole or not at all, also after a power loss."""

import contextlib
import os
from pathlib import Path


def put_in_place(aside: Path, target: Path) -> None:
    """Give a file that was written aside its name, once its content is on disk."""
    with aside.open("rb+") as file:
        os.fsync(file.fileno())
    aside.replace(target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to disk, where the system can."""
    with contextlib.suppress(OSError):  # Windows opens no folders, and some network drives sync none
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def write_whole(path: Path, text: str) -> None:
    """Write a text file, in place of the one before."""
    aside = path.with_name(f"{path.name}.partial")
    aside.write_text(text, encoding="utf-8")
    put_in_place(aside, path)

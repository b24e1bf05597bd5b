"""The study folder: what may be in it before a run, and where things go."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from lorascope.atomic import write_whole
from lorascope.errors import InputError
from lorascope.search.trials import differences
from lorascope.spec.load import dump_spec, load_spec
from lorascope.spec.schema import ANALYSIS_FIELDS, StudySpec
from lorascope.units import format_bytes


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """Paths in one study's folder."""

    path: Path

    @property
    def spec(self) -> Path:
        """Return the file of the resolved study."""
        return self.path / "study.yaml"

    @property
    def spec_aside(self) -> Path:
        """Return the file in which the resolved study is written before it gets its name."""
        return self.path / "study.yaml.partial"

    @property
    def store(self) -> Path:
        """Return the file of records."""
        return self.path / "study.db"

    @property
    def lock(self) -> Path:
        """Return the file that says which process runs the study; there only while one does, or was killed."""
        return self.path / "study.lock"

    @property
    def adapters(self) -> Path:
        """Return the folder of adapters in PEFT's format."""
        return self.path / "adapters"

    @property
    def checkpoints(self) -> Path:
        """Return the folder of what only an unfinished study needs."""
        return self.path / "checkpoints"

    def checkpoint(self, group: int) -> Path:
        """Return the file from which the training of a pack continues."""
        return self.checkpoints / f"pack-{group}.safetensors"


def check_folder(folder: StudyFolder, spec: StudySpec) -> bool:
    """Return True when the folder holds this very study, False when it is free for it.

    A study that differs only in how its records are read is the same study.

    Raises:
        InputError: it is a file, cannot be written, or holds something else.
    """
    path = folder.path
    if path.exists() and not path.is_dir():
        raise InputError(f"the output folder {path} is a file", remedy="choose another folder with --out")
    check_writable(path, flag="--out")
    if folder.spec.is_file():
        there = load_spec(folder.spec, {})
        same_analysis = {field: getattr(spec, field) for field in ANALYSIS_FIELDS}
        changed = differences(there.model_copy(update=same_analysis), spec)
        if changed:
            raise InputError(
                f"the output folder {path} holds a different study ({'; '.join(changed)})",
                remedy="choose another folder with --out, or give the study's own settings to continue it",
            )
        return True
    if path.is_dir() and any(item not in (folder.spec_aside, folder.lock) for item in path.iterdir()):
        raise InputError(
            f"the output folder {path} holds other files", remedy="choose an empty or new folder with --out"
        )
    return False


def check_writable(path: Path, *, flag: str) -> None:
    """Refuse a folder that is not there and cannot be made, or that cannot be written.

    Raises:
        InputError: it lies under a file or where this user may not write.
    """
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not existing.is_dir():
        raise InputError(f"{path} lies under {existing}, which is a file", remedy=f"choose another folder with {flag}")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"the output folder {path} cannot be written", remedy=f"choose another folder with {flag}")


def check_disk(folder: StudyFolder, needed_bytes: int) -> None:
    """Refuse to start where the adapters and checkpoints would not fit.

    Raises:
        InputError: the disk has less free space than needed.
    """
    existing = next(parent for parent in (folder.path, *folder.path.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise InputError(
            f"{folder.path} has {format_bytes(free)} free; adapters and checkpoints need {format_bytes(needed_bytes)}",
            remedy="free space, choose another disk with --out, or ask for smaller ranks",
        )


def begin_folder(folder: StudyFolder, spec: StudySpec) -> None:
    """Make the folder and write the resolved study into it, complete or not at all."""
    folder.path.mkdir(parents=True, exist_ok=True)
    write_whole(folder.spec, dump_spec(spec))

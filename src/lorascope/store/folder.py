"""The study folder: its file names, and checks before a run writes to it."""

import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lorascope.atomic import partial_path, write_whole
from lorascope.errors import InputError
from lorascope.records import Arm
from lorascope.search.growth import continued, refusals
from lorascope.search.trials import arm_name
from lorascope.spec.load import STUDY_FILE, dump_spec, load_spec
from lorascope.spec.schema import StudySpec
from lorascope.store.lock import FolderLock
from lorascope.units import format_bytes

_REPORT_FILES = ("report*.html", "report*.md", "assignment*.md", "summary.json", "runs.csv", "samples.jsonl",
                 "charts*.zip")  # fmt: skip
_ADAPTER_BYTES = 4
"""Of a parameter."""
_CHECKPOINT_BYTES = 12
"""Of a parameter: its weight and AdamW's two averages."""


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """Paths of one study's files."""

    path: Path

    @property
    def spec(self) -> Path:
        """The resolved study."""
        return self.path / STUDY_FILE

    @property
    def store(self) -> Path:
        """All records."""
        return self.path / "study.db"

    @property
    def store_log(self) -> Path:
        """SQLite's write-ahead log of the store."""
        return self.path / "study.db-wal"

    @property
    def lock(self) -> Path:
        """Names the process that runs the study; exists only while one does, or after a kill."""
        return self.path / "study.lock"

    @property
    def adapters(self) -> Path:
        """Folder of adapters in PEFT's format, one folder a trial and one a rank."""
        return self.path / "adapters"

    def trial_adapter(self, trial_id: str) -> Path:
        """Return the folder of a trial's adapter."""
        return self.adapters / trial_id

    def arm_adapter(self, arm: Arm) -> Path:
        """Return the folder of the adapter that stands for a rank in a set of target modules."""
        return self.adapters / arm_name(arm)

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints; a finished study has none."""
        return self.path / "checkpoints"

    def checkpoint(self, number: int) -> Path:
        """Return the checkpoint of a search round, counted from 0."""
        return self.checkpoints / f"round-{number}.safetensors"

    @property
    def summary(self) -> Path:
        """The summary that programs read."""
        return self.path / "summary.json"

    def report(self, suffix: Literal["html", "md"], ending: str = "") -> Path:
        """Return a report; ``ending`` names a language other than English, such as ``.ko``."""
        return self.path / f"report{ending}.{suffix}"

    def assignment(self, ending: str = "") -> Path:
        """Return the answer sheet of the reference study; ``ending`` as of a report."""
        return self.path / f"assignment{ending}.md"

    @property
    def charts(self) -> Path:
        """Folder of the report's charts as pictures."""
        return self.path / "charts"

    @property
    def runs(self) -> Path:
        """The numbers of every run, for a spreadsheet."""
        return self.path / "runs.csv"

    @property
    def samples(self) -> Path:
        """Held-out prompts with the answers of the base and of each rank, one prompt a line."""
        return self.path / "samples.jsonl"

    def charts_archive(self, ending: str = "") -> Path:
        """Return the charts of a report in one file."""
        return self.path / f"charts{ending}.zip"

    def shown_files(self) -> dict[str, Path]:
        """Return the files that a page may show, by their path in the folder: reports, charts and adapters."""
        tops = [path for pattern in _REPORT_FILES for path in self.path.glob(pattern)]
        below = [path for folder in (self.charts, self.adapters) if folder.is_dir() for path in folder.rglob("*")]
        root = self.path.resolve()
        files = (path for path in sorted(tops + below) if path.is_file() and path.resolve().is_relative_to(root))
        return {path.relative_to(self.path).as_posix(): path for path in files}

    def is_study(self) -> bool:
        """Return True if the folder holds a study, whether or not it has records yet."""
        return self.store.is_file() or self.spec.is_file()


def as_continued(folder: StudyFolder, spec: StudySpec) -> StudySpec:
    """Return the study as the folder's own one goes on: with its ``template_date`` and ``workers``, where none are
    given, and its order of ranks, seeds and rates.
    """
    if not folder.spec.is_file():
        return spec
    there = load_spec(folder.spec, {})
    kept = {name: getattr(there, name) for name in ("template_date", "workers") if getattr(spec, name) is None}
    spec = spec.model_copy(update=kept)
    return continued(there, spec)


def check_folder(folder: StudyFolder, spec: StudySpec) -> bool:
    """Return True when the folder holds this study, or one that can grow to it, False when it is free for it.

    A study that differs only in how its records are read is the same study.

    Raises:
        InputError: it is a file, cannot be written, or holds something else.
    """
    path = folder.path
    if path.exists() and not path.is_dir():
        raise InputError(f"the output folder {path} is a file", remedy="choose another folder with --out")
    check_writable(path, flag="--out")
    if folder.spec.is_file():
        if changed := refusals(load_spec(folder.spec, {}), spec):
            continue_it = shlex.join(["lorascope", "run", str(path)])
            raise InputError(
                f"the output folder {path} holds a different study ({'; '.join(changed)})",
                remedy=f"choose another folder with --out; to continue that study: {continue_it}",
            )
        return True
    if path.is_dir() and any(item not in (partial_path(folder.spec), folder.lock) for item in path.iterdir()):
        raise InputError(
            f"the output folder {path} holds other files", remedy="choose an empty or new folder with --out"
        )
    return False


def check_writable(path: Path, *, flag: str) -> None:
    """Check that a folder can be written, or made.

    Raises:
        InputError: it lies under a file or where this user may not write.
    """
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not existing.is_dir():
        raise InputError(f"{path} lies under {existing}, which is a file", remedy=f"choose another folder with {flag}")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"the output folder {path} cannot be written", remedy=f"choose another folder with {flag}")


def check_disk(folder: StudyFolder, trained: int, saved: int) -> None:
    """Check that the disk holds so many parameters in adapters, and those trained in two checkpoints and a third.

    Raises:
        InputError: the disk has less free space than needed.
    """
    needed_bytes = saved * _ADAPTER_BYTES + 3 * trained * _CHECKPOINT_BYTES
    existing = next(parent for parent in (folder.path, *folder.path.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise InputError(
            f"{folder.path} has {format_bytes(free)} free; adapters and checkpoints need {format_bytes(needed_bytes)}",
            remedy="free space, choose another disk with --out, or ask for smaller ranks",
        )


def begin_folder(folder: StudyFolder, spec: StudySpec, lock: FolderLock, *, continued: bool) -> None:
    """Make and lock the folder, and write the resolved study into it.

    Raises:
        InputError: another run holds the folder, or took it since it was found free.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    lock.acquire()
    if not continued and check_folder(folder, spec):
        raise InputError(
            f"another run began this study in {folder.path} in the meantime",
            remedy="give the command again to continue it",
        )
    write_whole(folder.spec, dump_spec(spec))

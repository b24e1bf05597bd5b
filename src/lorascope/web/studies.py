"""The studies that the page shows: one folder, or all studies in it. Names from requests are only looked up here."""

import threading
from collections.abc import Callable
from pathlib import Path

from lorascope.errors import InputError
from lorascope.store.folder import StudyFolder
from lorascope.store.live import LiveStore, is_uninitialized
from lorascope.text.language import language
from lorascope.web import view
from lorascope.web.monitor import StudyMonitor


def check_root(root: Path) -> None:
    """Check that a folder is a study or holds one.

    Raises:
        InputError: there is no such folder, no study in it, or the study cannot be read.
    """
    if not root.is_dir():
        raise InputError(f"there is no folder {root}", remedy="give the folder of a study, or one that holds studies")
    study = StudyFolder(root)
    if study.is_study():
        if study.store.is_file() and not is_uninitialized(study.store):
            LiveStore.open(study.store).close()
    elif not any(StudyFolder(folder).is_study() for folder in root.iterdir()):
        raise InputError(f"there is no study in {root}", remedy="give the folder of a study, or one that holds studies")


class Studies:
    """Studies by name, with their monitors.

    Args:
        root: folder of a study, or of studies.
        run_alive: whether the run that serves its own study here is alive; None outside a run.
    """

    def __init__(self, root: Path, *, run_alive: Callable[[], bool] | None = None) -> None:
        self._root = root
        self._run_alive = run_alive
        self.single = run_alive is not None or StudyFolder(root).is_study()
        self._lock = threading.Lock()
        self._monitors: dict[str, StudyMonitor] = {}
        self._listed: dict[str, StudyMonitor] = {}

    def folders(self) -> dict[str, Path]:
        """Return the folders of the studies by name, sorted."""
        if self.single:
            return {self._root.resolve().name: self._root}
        folders = sorted(self._root.iterdir(), key=lambda folder: folder.name) if self._root.is_dir() else []
        return {folder.name: folder for folder in folders if StudyFolder(folder).is_study()}

    def monitor(self, name: str) -> StudyMonitor | None:
        """Return the monitor of a study; None if there is no such study."""
        folder = self.folders().get(name)
        if folder is None:
            return None
        with self._lock:
            if name not in self._monitors:
                self._monitors[name] = StudyMonitor(folder, run_alive=self._run_alive)
            return self._monitors[name]

    def render_list(self, code: str) -> str:
        """Render the table of all studies in a language."""
        with self._lock, language(code):
            self._listed = {
                name: self._listed.get(name) or StudyMonitor(folder, detailed=False)
                for name, folder in self.folders().items()
            }
            return view.study_list({name: monitor.poll() for name, monitor in self._listed.items()})

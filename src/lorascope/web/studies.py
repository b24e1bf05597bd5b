"""The studies a page shows: one folder, or all studies in it; names from outside are only ever looked up here."""

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from lorascope.errors import InputError
from lorascope.records import TrialRecord
from lorascope.spec.load import load_spec
from lorascope.store.live import LiveStore, is_being_made
from lorascope.text.language import language, tr
from lorascope.web import view
from lorascope.web.feed import Feed
from lorascope.web.liveness import Pulse
from lorascope.web.state import TrialStand, stand, state_of


def is_study(folder: Path) -> bool:
    """Say whether a folder holds a study."""
    return (folder / "study.db").is_file() or (folder / "study.yaml").is_file()


def check_root(root: Path) -> None:
    """Refuse a folder in which there is nothing to show.

    Raises:
        InputError: there is no such folder, no study in it, or the study cannot be read.
    """
    if not root.is_dir():
        raise InputError(f"there is no folder {root}", remedy="give the folder of a study, or one that holds studies")
    if is_study(root):
        if (root / "study.db").is_file() and not is_being_made(root / "study.db"):
            LiveStore.open(root / "study.db").close()
    elif not any(is_study(folder) for folder in root.iterdir()):
        raise InputError(f"there is no study in {root}", remedy="give the folder of a study, or one that holds studies")


class Shelf:
    """Studies by name, and their feeds.

    Args:
        root: folder of a study, or of studies.
        in_run: says whether the run that shows this page is still at work; given where a run shows its own study.
    """

    def __init__(self, root: Path, *, in_run: Callable[[], bool] | None = None) -> None:
        self._root = root
        self._in_run = in_run
        self.single = in_run is not None or is_study(root)
        self._lock = threading.Lock()
        self._feeds: dict[tuple[str, str], Feed] = {}
        self._rows: dict[str, _Row] = {}

    def studies(self) -> dict[str, Path]:
        """Return the folders of the studies by name, sorted."""
        if self.single:
            return {self._root.resolve().name: self._root}
        folders = sorted(self._root.iterdir(), key=lambda folder: folder.name) if self._root.is_dir() else []
        return {folder.name: folder for folder in folders if is_study(folder)}

    def feed(self, name: str, code: str) -> Feed | None:
        """Return the feed of a study in a language; None where there is no such study."""
        folder = self.studies().get(name)
        if folder is None:
            return None
        with self._lock:
            if (name, code) not in self._feeds:
                self._feeds[name, code] = Feed(folder, code, in_run=self._in_run)
            return self._feeds[name, code]

    def listing(self, code: str) -> str:
        """Show all studies in a table."""
        with self._lock, language(code):
            studies = self.studies()
            self._rows = {name: self._rows.get(name) or _Row(name, folder) for name, folder in studies.items()}
            return view.render("list.html.j2", rows=[row.values(code) for row in self._rows.values()])


class _Row:
    """One study in the list; read again only when it changed."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._folder = name, folder
        self._pulse = Pulse(folder)
        self._trials: tuple[TrialStand, ...] = ()
        self._known: dict[str, object] = {}

    def values(self, code: str) -> dict[str, object]:
        """Return the cells."""
        if self._pulse.beat() or not self._known:
            self._known = self._read()
        state = state_of(self._trials, alive=self._pulse.alive(), left_open=self._pulse.left_open())
        done = sum(trial.steps for trial in self._trials)
        return {
            **self._known,
            "name": self._name,
            "address": f"/study/{quote(self._name, safe='')}?lang={code}",
            "state": state,
            "label": view.state_label(state),
            "done": tr("{done} steps", done=f"{done:,}"),
        }

    def _read(self) -> dict[str, object]:
        try:
            spec = load_spec(self._folder / "study.yaml", {})
            best = self._read_store() if (self._folder / "study.db").is_file() else view.NONE
        except InputError as error:
            self._pulse.forget()
            return {"model": error.problem, "dataset": "", "ranks": "", "best": ""}
        except sqlite3.Error as error:
            self._pulse.forget()
            return {"model": str(error), "dataset": "", "ranks": "", "best": ""}
        ranks = ", ".join(str(rank) for rank in sorted(spec.ranks))
        return {"model": spec.model, "dataset": spec.dataset, "ranks": ranks, "best": best}

    def _read_store(self) -> str:
        with LiveStore.open(self._folder / "study.db") as store, store.snapshot():
            outcomes = store.outcomes()
            self._trials = tuple(
                stand(trial, outcomes.get(trial.trial_id), store.last_step(trial.trial_id))
                for trial in store.read(TrialRecord)
            )
            return _best(store, self._trials)


def _best(store: LiveStore, trials: tuple[TrialStand, ...]) -> str:
    losses = []
    for trial in trials:
        name = trial.trial.trial_id
        last = store.evaluations_after(name, store.last_evaluation(name) - 1)
        if last and last[-1].step > 0 and last[-1].loss is not None:
            losses.append((last[-1].loss, trial.trial.rank))
    if not losses:
        return view.NONE
    loss, rank = min(losses)
    return tr("{loss} at rank {rank}", loss=view.loss(loss), rank=rank)

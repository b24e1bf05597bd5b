"""What one study's page shows, as parts that know when they last changed.

There is no log of events. A page says which version it has seen and is given every part, and every point of a line,
that changed since: whoever reloads or was cut off misses nothing and gets nothing twice, and memory does not grow.
"""

import secrets
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lorascope.analysis import load_study, summarize_data
from lorascope.errors import InputError
from lorascope.spec.load import load_spec
from lorascope.store.live import LiveStore, is_being_made
from lorascope.text.language import language
from lorascope.web import view
from lorascope.web.live_charts import line_charts
from lorascope.web.liveness import Pulse
from lorascope.web.pictures import summary_charts
from lorascope.web.snapshot import Look, Watch
from lorascope.web.state import State, state_of

POLL_SECONDS = 0.4
_SUMMARY_SHARE = 20
"""A summary is made again at the earliest after this many times what it took: at most a twentieth of one core."""

Update = dict[str, Any]


class Feed:
    """One study in one language; any thread may call.

    Args:
        folder: of the study; it may come later.
        code: language of all texts.
        in_run: says whether the run is at work, where a run shows its own page; else that is told from its records.
    """

    def __init__(self, folder: Path, code: str, *, in_run: Callable[[], bool] | None = None) -> None:
        self.folder = folder
        self._code = code
        self._in_run = in_run
        self._lock = threading.Lock()
        self._pulse = Pulse(folder)
        self._polled_at = -POLL_SECONDS
        self._summary_from = 0.0
        self._summary_thread: threading.Thread | None = None
        self._begin()

    def _begin(self) -> None:
        """Know nothing yet; pages that know something of what was here before start anew."""
        self._born = secrets.token_hex(4)
        self._version = 0
        self._parts: dict[str, tuple[int, object]] = {}
        self._watch = Watch()
        self._look: Look | None = None
        self._summary_key: object = None
        self._put("problem", "")

    def update(self, seen: str) -> tuple[str, Update] | None:
        """Return what changed after the version named ``seen``, with the name of the new one; None where nothing did.

        An unknown name, or none, gets everything and is told to start anew.
        """
        with self._lock, language(self._code):
            if time.monotonic() - self._polled_at >= POLL_SECONDS:
                self._poll()
                self._polled_at = time.monotonic()
            known = self._known(seen)
            if known == self._version:
                return None
            update = {name: part for name, (at, part) in self._parts.items() if at > known}
            lines = self._lines_since(known)
            if lines:
                update["lines"] = lines
            if not update:
                return None
            if known == 0:
                update["anew"] = True
            return f"{self._born}-{self._version}", update

    def _known(self, seen: str) -> int:
        born, _, number = seen.partition("-")
        if born != self._born or not number.isascii() or not number.isdecimal() or len(number) > 12:
            return 0
        return int(number) if int(number) <= self._version else 0

    def _lines_since(self, version: int) -> dict[str, dict[str, object]]:
        lines: dict[str, dict[str, object]] = {}
        for (chart, name), line in self._watch.lines.items():
            anew, points = line.curve.since(version)
            if anew or points:
                lines.setdefault(chart, {})[name] = {"anew": anew, "points": points}
        return lines

    def _poll(self) -> None:
        if self._pulse.beat():
            self._read()
        state = self._state()
        self._put("state", {"name": state, "label": view.state_label(state)})
        self._put("status", view.status(self._look, state))
        if self._look is not None:
            self._put("trials", view.trials(self._look, state))
            self._summarise_if_due(self._look)

    def _read(self) -> None:
        """Take in what was written; a store that cannot be read is said on the page, and tried again."""
        if not (self.folder / "study.db").is_file():
            return
        try:
            spec = load_spec(self.folder / "study.yaml", {})
            with LiveStore.open(self.folder / "study.db") as store:
                self._version += 1
                look = self._watch.look(store, spec, self._version)
        except (InputError, sqlite3.Error) as error:
            if not is_being_made(self.folder / "study.db"):
                self._put("problem", view.problem(error, self.folder))
            self._pulse.forget()
            return
        if self._look is not None and not _names(self._look) <= _names(look):
            # Another study lies where the first one was.
            self._begin()
            self._read()
            return
        self._look = look
        self._put("problem", "")
        self._put("head", view.head(look))
        self._put("data_hash", look.resolved.data_hash if look.resolved else None)
        self._put("marks", view.marks(look))
        if look.trials:
            self._put("lines_charts", line_charts(look))

    def _state(self) -> State:
        alive = self._pulse.alive() if self._in_run is None else self._in_run()
        trials = self._look.trials if self._look else ()
        return state_of(trials, alive=alive, left_open=self._pulse.left_open())

    def _summarise_if_due(self, look: Look) -> None:
        """Start making the summary again where something but training steps is new."""
        key = (
            look.spec,
            look.starts,
            look.examined,
            tuple(t.outcome for t in look.trials),
            tuple(look.eval_steps.items()),
        )
        busy = self._summary_thread is not None and self._summary_thread.is_alive()
        if key == self._summary_key or busy or time.monotonic() < self._summary_from:
            return
        self._summary_key = key
        # In a thread of its own: a study of a million rows takes seconds, in which points must not wait.
        self._summary_thread = threading.Thread(
            target=self._summarise, args=(key,), name="lorascope-summary", daemon=True
        )
        self._summary_thread.start()

    def _summarise(self, key: object) -> None:
        began = time.monotonic()
        try:
            with language(self._code):
                data = load_study(self.folder)
                summary = summarize_data(data)
                result, charts = view.result(summary), summary_charts(data, summary)
        except (InputError, sqlite3.Error):
            return  # the fast half says what is wrong
        finally:
            self._summary_from = time.monotonic() + _SUMMARY_SHARE * (time.monotonic() - began)
        with self._lock:
            if key == self._summary_key:
                self._put("result", result)
                self._put("charts", charts)

    def _put(self, name: str, part: object) -> None:
        before = self._parts.get(name)
        if before is None or before[1] != part:
            self._version += 1
            self._parts[name] = (self._version, part)


def _names(look: Look) -> set[str]:
    return {trial.trial.trial_id for trial in look.trials}

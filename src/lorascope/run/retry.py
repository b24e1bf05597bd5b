"""Retry writes on a full disk, a folder that became read-only, or a store that another program locks."""

import sqlite3
import time
from collections.abc import Callable

from lorascope.errors import Interrupted, LorascopeError

_MAX_SECONDS = 300.0
_PAUSE_SECONDS = 1.0


class WriteRetry:
    """Repeats a write for some minutes until it succeeds; a write that fails must leave nothing half done.

    Args:
        note: called when waiting begins, and when the write succeeded after all.
        check_stop: raises Interrupted when the user wants to stop.
    """

    def __init__(self, note: Callable[[str], None], check_stop: Callable[[], None]) -> None:
        self._note = note
        self._check_stop = check_stop

    def write(self, action: Callable[[], None]) -> None:
        """Write, and write again until it succeeds.

        Raises:
            LorascopeError: it failed for too long, or the user does not want to wait. What was written before is whole.
        """
        began: float | None = None
        while True:
            try:
                action()
            except (OSError, sqlite3.OperationalError) as error:
                if began is None:
                    began = time.monotonic()
                    self._note(f"cannot write ({error}); trying again for {_MAX_SECONDS / 60:.0f} minutes")
                self._wait(error, began)
            else:
                if began is not None:
                    self._note("can write again; the run goes on")
                return

    def _wait(self, error: Exception, began: float) -> None:
        try:
            self._check_stop()
        except Interrupted:
            gives_up = True
        else:
            gives_up = time.monotonic() - began > _MAX_SECONDS
        if gives_up:
            raise LorascopeError(
                f"cannot write to the study's folder: {error}\n"
                "  -> free space or mend permissions, then run the same command: what was written is kept"
            ) from error
        time.sleep(_PAUSE_SECONDS)

"""Signals: Ctrl-C and SIGTERM stop a run at the next safe point, and at once when they come again.

At once means ``KeyboardInterrupt``. It may come between any two instructions, so that nothing may be saved after it,
and no library handles it as an error of its own.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

from lorascope.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Turns signals into exceptions inside its ``with`` block.

    Outside of ``deferred`` a signal raises ``KeyboardInterrupt`` at once. Inside, the first signal makes ``check``
    raise ``Interrupted``, so that a step is never half recorded; the second raises ``KeyboardInterrupt``.
    """

    def __init__(self) -> None:
        self._requested = False
        self._deferring = False
        self._on_request: Callable[[], None] = lambda: None
        self._previous: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        # Python delivers signals to the main thread only
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._deferring and not self._requested:
            self._requested = True
            self._on_request()
            return
        raise KeyboardInterrupt(signal.Signals(number).name)

    @contextmanager
    def deferred(self, on_request: Callable[[], None]) -> Iterator[None]:
        """At the first signal, call ``on_request`` and let ``check`` raise."""
        self._on_request = on_request
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    def check(self) -> None:
        """Raise ``Interrupted`` if a signal came."""
        if self._requested:
            raise Interrupted("stopped as asked")

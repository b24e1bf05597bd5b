"""Ctrl-C and SIGTERM: stop at the next safe place, or at once when pressed again.

At once means ``KeyboardInterrupt``: it may strike between any two instructions, so nothing may be saved after it, and
no library takes it for an error of its own.
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
    """Turns the signals into exceptions while inside its ``with`` block.

    Outside of ``deferred`` a signal raises ``KeyboardInterrupt`` at once. Inside, the first signal is remembered until
    ``check`` raises ``Interrupted``, so that a step is never half recorded; the second comes at once.
    """

    def __init__(self) -> None:
        self._requested = False
        self._deferring = False
        self._on_request: Callable[[], None] = lambda: None
        self._previous: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        # Python hands signals to the main thread only
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
        """Call ``on_request`` at the first signal, and hold it back until ``check`` is called."""
        self._on_request = on_request
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    def check(self) -> None:
        """Raise ``Interrupted`` when a signal has come."""
        if self._requested:
            raise Interrupted("stopped as asked")

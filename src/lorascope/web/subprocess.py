"""Subprocess that serves the page of a run."""

import contextlib
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path

from lorascope.errors import InputError
from lorascope.web.sockets import HOST, PORT, address, listen

_STOP_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedPage:
    """A page that is served beside a run."""

    address: str
    end_run: Callable[[], None]
    """Tell the page that the run has ended; it is served on."""


@contextlib.contextmanager
def serve_in_subprocess(folder: Path) -> Iterator[ServedPage]:
    """Serve a study's page from a subprocess within this block.

    The subprocess shares neither Python's global lock nor Torch with the run, and ends with it, even if the run is
    killed. If the default port is in use, perhaps by another run's page, a free one is taken.
    """
    try:
        listener = listen(HOST, PORT)
    except InputError:
        listener = listen(HOST, 0)
    context = multiprocessing.get_context("spawn")
    ended = context.Event()
    child = context.Process(
        target=_serve_for_parent, args=(listener, folder, ended), daemon=True, name="lorascope-page"
    )
    shown = address(listener, HOST, None)
    child.start()
    listener.close()
    try:
        yield ServedPage(address=shown, end_run=ended.set)
    finally:
        child.terminate()
        child.join(_STOP_SECONDS)
        if child.is_alive():
            child.kill()
            child.join()
        child.close()


def _serve_for_parent(listener: socket.socket, folder: Path, ended: Event) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    if hasattr(os, "setsid"):
        # Ctrl-C in a terminal is for the run, which then saves its state for some seconds; the page shows that.
        os.setsid()
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()
    from lorascope.web.server import serve  # noqa: PLC0415 - keeps charts and server out of the run's process

    serve(listener, folder, host=HOST, token=None, run_alive=lambda: parent.is_alive() and not ended.is_set())


def _exit_with(parent: multiprocessing.process.BaseProcess) -> None:
    """Terminate this process when the run ends, even if it was killed."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)

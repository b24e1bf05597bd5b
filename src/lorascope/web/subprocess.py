"""The page of a run, in a process beside it."""

import contextlib
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from lorascope.errors import InputError
from lorascope.web.sockets import HOST, PORT, address, listen

_STOP_SECONDS = 5.0


@contextlib.contextmanager
def served_beside(folder: Path) -> Iterator[str]:
    """Serve a study's page from a process of its own within this block, and give its address.

    The page then shares neither Python's lock nor Torch with the run, and goes away with it, however it ends. Where
    the usual port is in use, perhaps by the page of another run, any free one is taken.
    """
    try:
        listener = listen(HOST, PORT)
    except InputError:
        listener = listen(HOST, 0)
    child = multiprocessing.get_context("spawn").Process(
        target=_serve_for_parent, args=(listener, folder), daemon=True, name="lorascope-page"
    )
    shown = address(listener, HOST, None)
    child.start()
    listener.close()
    try:
        yield shown
    finally:
        child.terminate()
        child.join(_STOP_SECONDS)
        if child.is_alive():
            child.kill()
            child.join()
        child.close()


def _serve_for_parent(listener: socket.socket, folder: Path) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    if hasattr(os, "setsid"):
        # Ctrl-C in a terminal is for the run, which then takes some seconds to save itself; the page shows them.
        os.setsid()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    from lorascope.web.server import serve  # noqa: PLC0415 - the run's own process shall not load what draws and serves

    serve(listener, folder, host=HOST, token=None, in_run=parent.is_alive)


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    """End this process when the run is gone, also when it was killed."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)

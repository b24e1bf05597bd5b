"""Listen and serve: for ``lorascope serve``, or beside a run in a process of its own."""

import contextlib
import errno
import multiprocessing
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn

from lorascope.errors import InputError
from lorascope.web.app import Page, asset_content
from lorascope.web.safety import Guard, is_loopback, own_names
from lorascope.web.shelf import Shelf

HOST = "127.0.0.1"
PORT = 8501
_LAST_PORT = 65535
_NICE = 10
_STREAMS_END_SECONDS = 3
_STOP_SECONDS = 5.0
_MOST_CONNECTIONS = 64


def listen(host: str, port: int) -> socket.socket:
    """Open the socket the page is served on.

    Raises:
        InputError: the address or the port cannot be used.
    """
    if not 0 <= port <= _LAST_PORT:
        raise InputError(f"there is no port {port}", remedy=f"give a --port from 0 to {_LAST_PORT}")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InputError(f"{host} is no address of this machine: {error}", remedy="give another --host") from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            # A port whose last connections have not run out may be taken at once; one that is served may not.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_MOST_CONNECTIONS)
    except OSError as error:
        listener.close()
        raise _refusal(host, port, error) from error
    return listener


def _refusal(host: str, port: int, error: OSError) -> InputError:
    if error.errno == errno.EADDRINUSE:
        return InputError(f"port {port} on {host} is in use", remedy="give another --port, or 0 for any that is free")
    if error.errno in (errno.EACCES, errno.EPERM):
        return InputError(f"port {port} on {host} is not allowed", remedy="give a --port of 1024 or more")
    return InputError(f"cannot listen on {host}: {error.strerror}", remedy="give an address of this machine as --host")


def make_token(host: str) -> str | None:
    """Return what visitors must know; None where only this machine can ask."""
    return None if is_loopback(host) else secrets.token_urlsafe(24)


def address(listener: socket.socket, host: str, token: str | None) -> str:
    """Return what to type into a browser."""
    port = listener.getsockname()[1]
    name = socket.gethostname() if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound
    shown = f"[{name}]" if ":" in name else name
    return f"http://{shown}:{port}/" + (f"?token={token}" if token else "")


def serve(
    listener: socket.socket, folder: Path, *, host: str, token: str | None, in_run: Callable[[], bool] | None = None
) -> None:
    """Serve until a signal comes. Lowers this process's priority: a run goes first.

    Args:
        listener: from ``listen``.
        folder: of a study, or of studies.
        host: what was listened on.
        token: what visitors must know; None for no token.
        in_run: says whether the run that shows its own page is at work; None outside a run.
    """
    with contextlib.suppress(OSError, AttributeError):
        os.nice(_NICE)

    def closing() -> bool:
        return server.should_exit

    def at_work() -> bool:
        return in_run is not None and in_run() and not closing()

    app = Page(Shelf(folder, in_run=at_work if in_run else None), closing).app()
    server = uvicorn.Server(
        uvicorn.Config(
            Guard(app, names=own_names(host), token=token),
            log_level="error",
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            loop="asyncio",
            http="h11",
            proxy_headers=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=_STREAMS_END_SECONDS,
        )
    )
    # Bundling the script that draws takes seconds; begin before the first visitor asks.
    threading.Thread(target=asset_content, args=("vega.js",), daemon=True).start()
    server.run(sockets=[listener])


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
    serve(listener, folder, host=HOST, token=None, in_run=parent.is_alive)


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    """End this process when the run is gone, also when it was killed."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)

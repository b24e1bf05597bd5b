"""Serve the page until a signal comes."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import uvicorn

from lorascope.web.app import Page, asset_content
from lorascope.web.auth import Guard, own_names
from lorascope.web.studies import Shelf

_NICE = 10
_STREAMS_END_SECONDS = 3
_MOST_CONNECTIONS = 64


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

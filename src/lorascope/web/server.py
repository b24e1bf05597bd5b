"""Web server of the page."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import uvicorn

from lorascope.web.app import Page, asset_content
from lorascope.web.auth import Guard, own_names
from lorascope.web.studies import Studies

_NICE = 10
_SHUTDOWN_SECONDS = 5
_MAX_CONNECTIONS = 64


def serve(
    listener: socket.socket, folder: Path, *, host: str, token: str | None, run_alive: Callable[[], bool] | None = None
) -> None:
    """Serve until a signal arrives. Lowers this process's priority: a run goes first.

    Args:
        listener: the socket from ``listen``.
        folder: folder of a study, or of studies.
        host: address of the socket.
        token: token that visitors need; None for no token.
        run_alive: whether the run that serves its own page is alive; None outside a run.
    """
    with contextlib.suppress(OSError, AttributeError):
        os.nice(_NICE)

    def closing() -> bool:
        return server.should_exit

    def alive() -> bool:
        return run_alive is not None and run_alive() and not closing()

    app = Page(Studies(folder, run_alive=alive if run_alive else None), closing).app()
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
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
    )
    # Bundling the drawing script takes seconds; start before the first request.
    threading.Thread(target=asset_content, args=("vega.js",), daemon=True).start()
    server.run(sockets=[listener])

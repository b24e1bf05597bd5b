"""Send a request to an ASGI application without a socket."""

import asyncio
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Wait for a coroutine, in a thread of its own: a browser's test leaves an event loop running in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


def ask(app: Any, address: str, *, method: str = "GET", headers: Mapping[str, str] | None = None) -> Answer:
    """One request to an ASGI application."""
    parts = urlsplit(address)
    sent: list[dict[str, Any]] = []
    given = {"host": "127.0.0.1:8501"} | dict(headers or {})
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": unquote(parts.path), "raw_path": parts.path.encode(), "query_string": parts.query.encode(),
        "root_path": "", "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in given.items()],
        "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 8501),
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        if sent and not sent[-1].get("more_body", True):
            return {"type": "http.disconnect"}
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    run(app(scope, receive, send))
    start = sent[0]
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return Answer(start["status"], {name.decode(): value.decode() for name, value in start["headers"]}, body)

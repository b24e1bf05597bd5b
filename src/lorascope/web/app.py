"""The page's addresses. All of them are read-only, and none of them names a file."""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from urllib.parse import quote, urlencode

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from lorascope.charts.render import script
from lorascope.text.language import LANGUAGES, language, tr
from lorascope.web import view
from lorascope.web.feed import Feed, Update
from lorascope.web.studies import Shelf

LOOK_SECONDS = 0.5
BEAT_SECONDS = 5.0
RETRY_MS = 1000
MOST_STUDIES = 8
"""Studies beside each other; more are not readable."""
_STATIC = Path(__file__).parent / "static"
_SCRIPT = "vega.js"
_ASSETS = {_SCRIPT, *(path.name for path in _STATIC.iterdir())}
_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


class Page:
    """The application.

    Args:
        shelf: what is shown.
        closing: says that the server is about to end, so that streams end too.
    """

    def __init__(self, shelf: Shelf, closing: Callable[[], bool] = lambda: False) -> None:
        self._shelf = shelf
        self._closing = closing

    def app(self) -> Starlette:
        """Return it with its routes."""
        return Starlette(
            routes=[
                Route("/", self.home),
                Route("/study/{name}", self.study),
                Route("/compare", self.compare),
                Route("/events", self.events),
                Route("/assets/{name}", asset),
            ],
            exception_handlers={HTTPException: error_page},
        )

    async def home(self, request: Request) -> Response:
        """Show the one study, or the list of them."""
        code = chosen_language(request)
        if self._shelf.single:
            return self._study(request, next(iter(self._shelf.studies())), code)
        with language(code):
            return page(request, "index.html.j2", code, title=tr("Studies"), stream=f"/events?lang={code}")

    async def study(self, request: Request) -> Response:
        """Show one study."""
        return self._study(request, request.path_params["name"], chosen_language(request))

    def _study(self, request: Request, name: str, code: str) -> Response:
        self._feeds([name], code)
        with language(code):
            return page(request, "study.html.j2", code, title=name, name=name, stream=stream_address([name], code))

    async def compare(self, request: Request) -> Response:
        """Show studies beside each other."""
        code = chosen_language(request)
        names = list(dict.fromkeys(request.query_params.getlist("study")))
        with language(code):
            if not 2 <= len(names) <= MOST_STUDIES:
                raise HTTPException(400, tr("Choose two to {most} studies to compare.", most=MOST_STUDIES))
            self._feeds(names, code)
            return page(
                request,
                "compare.html.j2",
                code,
                title=tr("Studies beside each other"),
                names=[(name, f"/study/{quote(name, safe='')}?lang={code}") for name in names],
                stream=stream_address(names, code),
            )

    async def events(self, request: Request) -> Response:
        """Stream what changes, as server-sent events."""
        code = chosen_language(request)
        names = list(dict.fromkeys(request.query_params.getlist("study")))[:MOST_STUDIES]
        seen = request.headers.get("last-event-id") or request.query_params.get("after", "")
        if names:
            source = partial(news, dict(zip(names, self._feeds(names, code), strict=True)))
        else:
            source = partial(listing_news, self._shelf, code)
        return StreamingResponse(
            self._stream(source, seen), media_type="text/event-stream", headers={"cache-control": "no-store"}
        )

    async def _stream(self, source: Callable[[str], tuple[str, Update] | None], seen: str) -> AsyncIterator[str]:
        yield f"retry: {RETRY_MS}\n\n"
        said = time.monotonic()
        while True:
            closing = self._closing()
            found = await asyncio.to_thread(source, seen)
            if found is not None:
                seen, update = found
                yield f"id: {seen}\ndata: {json.dumps(update, ensure_ascii=False, allow_nan=False)}\n\n"
                said = time.monotonic()
            elif time.monotonic() - said >= BEAT_SECONDS:
                yield "event: beat\ndata: 1\n\n"
                said = time.monotonic()
            if closing:
                return
            await asyncio.sleep(LOOK_SECONDS)

    def _feeds(self, names: Sequence[str], code: str) -> list[Feed]:
        feeds = {name: self._shelf.feed(name, code) for name in names}
        for name, feed in feeds.items():
            if feed is None:
                with language(code):
                    raise HTTPException(404, tr("There is no study {name} here.", name=name))
        return [feed for feed in feeds.values() if feed is not None]


def news(feeds: Mapping[str, Feed], seen: str) -> tuple[str, Update] | None:
    """Gather what changed in several studies after the versions named in ``seen``: one for each, commas between."""
    versions = seen.split(",")
    if len(versions) != len(feeds):
        versions = [""] * len(feeds)
    updates = {}
    for place, (name, feed) in enumerate(feeds.items()):
        found = feed.update(versions[place])
        if found is not None:
            versions[place], updates[name] = found
    return (",".join(versions), {"studies": updates}) if updates else None


def listing_news(shelf: Shelf, code: str, seen: str) -> tuple[str, Update] | None:
    """Return the list of studies where it is not the one that was seen."""
    listing = shelf.listing(code)
    version = hashlib.sha256(listing.encode()).hexdigest()[:16]
    return None if version == seen else (version, {"list": listing})


def chosen_language(request: Request) -> str:
    """Return the language asked for: by ``lang``, else the first known one the browser prefers, else English."""
    asked = request.query_params.get("lang")
    if asked is not None:
        if asked not in LANGUAGES:
            raise HTTPException(404, f"There is no language {asked}; choose one of: {', '.join(LANGUAGES)}.")
        return asked
    for preferred in request.headers.get("accept-language", "").split(","):
        code = preferred.split(";")[0].split("-")[0].strip().lower()
        if code in LANGUAGES:
            return code
    return LANGUAGES[0]


def stream_address(names: Sequence[str], code: str) -> str:
    """Return the address of the events of these studies."""
    return "/events?" + urlencode([("lang", code), *(("study", name) for name in names)])


def page(
    request: Request, template: str, code: str, *, stream: str = "", status: int = 200, **values: object
) -> Response:
    """Fill a page."""
    others = [(key, value) for key, value in request.query_params.multi_items() if key != "lang"]
    query = {each: urlencode([*others, ("lang", each)]) for each in LANGUAGES}
    with language(code):
        text = view.render(template, query=query, home=f"/?lang={code}", stream=stream, **values)
    return HTMLResponse(text, status_code=status, headers={"cache-control": "no-store"})


async def error_page(request: Request, error: Exception) -> Response:
    """Say what is wrong with an address."""
    assert isinstance(error, HTTPException)
    code = request.query_params.get("lang", "")
    code = code if code in LANGUAGES else LANGUAGES[0]
    with language(code):
        title = tr("This page cannot be shown")
    return page(request, "error.html.j2", code, status=error.status_code, title=title, text=error.detail)


async def asset(request: Request) -> Response:
    """Hand over a script, a style or the icon; what the browser has already is not sent again."""
    name = request.path_params["name"]
    if name not in _ASSETS:
        raise HTTPException(404, "Not found")
    content, tag = await asyncio.to_thread(asset_content, name)
    headers = {"etag": tag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=_TYPES[name.rsplit(".", 1)[-1]], headers=headers)


@cache
def asset_content(name: str) -> tuple[bytes, str]:
    """Return an asset's bytes and a name for this version of them."""
    content = script().encode() if name == _SCRIPT else (_STATIC / name).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:16]}"'

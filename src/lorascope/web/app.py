"""HTTP routes of the page. All are read-only; a file's name is only looked up among those that a study shows."""

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
from starlette.responses import FileResponse, HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from lorascope.charts.fonts import font_files
from lorascope.charts.vega_bundle import vega_script
from lorascope.store.folder import StudyFolder
from lorascope.text.language import LANGUAGES, language, tr
from lorascope.web import view
from lorascope.web.live_charts import overlaid_charts
from lorascope.web.monitor import StudyMonitor
from lorascope.web.parts import Parts, render_study
from lorascope.web.studies import Studies

POLL_SECONDS = 0.5
HEARTBEAT_SECONDS = 5.0
RETRY_MS = 1000
MAX_STUDIES = 8
"""Studies that can be compared; more columns are not readable."""
_STATIC = Path(__file__).parent / "static"
_SCRIPT = "vega.js"
_FONT = "ko.otf"
_ASSETS = {_SCRIPT, _FONT, *(path.name for path in _STATIC.iterdir())}
FILE_HEADERS = {
    # A report brings its own policy, which allows its own scripts only; it shares nothing with the page beside it.
    "content-security-policy": "sandbox allow-scripts allow-downloads allow-modals; default-src 'none'; "
    "script-src 'unsafe-inline'; style-src 'unsafe-inline'; font-src data:; base-uri 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}
_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "otf": "font/otf"}


class Page:
    """The web application.

    Args:
        studies: the studies to show.
        closing: whether the server is about to stop; streams then send a last update and end.
    """

    def __init__(self, studies: Studies, closing: Callable[[], bool] = lambda: False) -> None:
        self._studies = studies
        self._closing = closing

    def app(self) -> Starlette:
        """Return the application with its routes."""
        return Starlette(
            routes=[
                Route("/", self.home),
                Route("/study/{name}", self.study),
                Route("/study/{name}/files/{path:path}", self.file),
                Route("/compare", self.compare),
                Route("/events", self.events),
                Route("/assets/{name}", asset),
            ],
            exception_handlers={HTTPException: error_page},
        )

    async def home(self, request: Request) -> Response:
        """Show the one study, or the list of them."""
        code = chosen_language(request)
        if self._studies.single:
            return self._study(request, next(iter(self._studies.folders())), code)
        with language(code):
            return page(request, "index.html.j2", code, title=tr("Studies"), stream=f"/events?lang={code}")

    async def study(self, request: Request) -> Response:
        """Show one study."""
        return self._study(request, request.path_params["name"], chosen_language(request))

    def _study(self, request: Request, name: str, code: str) -> Response:
        self._monitors([name], code)
        with language(code):
            return page(request, "study.html.j2", code, title=name, name=name, stream=stream_address([name], code))

    async def file(self, request: Request) -> Response:
        """Send one of a study's reports, charts or adapter files, or list a folder of them."""
        code = chosen_language(request)
        monitor = self._monitors([request.path_params["name"]], code)[request.path_params["name"]]
        files = await asyncio.to_thread(StudyFolder(monitor.folder).shown_files)
        asked: str = request.path_params["path"]
        if asked in files:
            return FileResponse(files[asked], headers=FILE_HEADERS)
        inside = [found.removeprefix(asked) for found in files if found.startswith(asked)]
        if not asked.endswith("/") or not inside:
            with language(code):
                raise HTTPException(404, tr("There is no such file here."))
        entries = list(dict.fromkeys(found.split("/")[0] + ("/" if "/" in found else "") for found in inside))
        return page(request, "files.html.j2", code, title=asked, entries=entries)

    async def compare(self, request: Request) -> Response:
        """Show studies side by side."""
        code = chosen_language(request)
        names = list(dict.fromkeys(request.query_params.getlist("study")))
        with language(code):
            if not 2 <= len(names) <= MAX_STUDIES:
                raise HTTPException(400, tr("Select two to {most} studies to compare.", most=MAX_STUDIES))
            monitors = self._monitors(names, code)
            specs = {name: (await asyncio.to_thread(monitor.poll)).spec for name, monitor in monitors.items()}
            ranks = sorted({rank for spec in specs.values() if spec for rank in spec.ranks})
            return page(
                request,
                "compare.html.j2",
                code,
                charts=json.dumps(overlaid_charts(names, ranks)),
                settings=view.settings(specs),
                title=tr("Studies side by side"),
                names=[(name, f"/study/{quote(name, safe='')}?lang={code}") for name in names],
                stream=stream_address(names, code),
            )

    async def events(self, request: Request) -> Response:
        """Stream updates as server-sent events."""
        code = chosen_language(request)
        names = list(dict.fromkeys(request.query_params.getlist("study")))[:MAX_STUDIES]
        if names:
            read = partial(study_parts, self._monitors(names, code), code)
        else:
            read = partial(list_parts, self._studies, code)
        return StreamingResponse(
            self._stream(read), media_type="text/event-stream", headers={"cache-control": "no-store"}
        )

    async def _stream(self, read: Callable[[], Parts]) -> AsyncIterator[str]:
        """Send all parts, then whole parts when they change (null when they go), and heartbeats in between."""
        yield f"retry: {RETRY_MS}\n\n"
        sent: Parts = {}
        sent_at = time.monotonic()
        while True:
            closing = self._closing()
            parts = await asyncio.to_thread(read)
            update = changed_parts(sent, parts)
            if update:
                yield f"data: {encode(update)}\n\n"
                sent, sent_at = parts, time.monotonic()
            elif time.monotonic() - sent_at >= HEARTBEAT_SECONDS:
                yield "event: heartbeat\ndata: 1\n\n"
                sent_at = time.monotonic()
            if closing:
                return
            await asyncio.sleep(POLL_SECONDS)

    def _monitors(self, names: Sequence[str], code: str) -> dict[str, StudyMonitor]:
        monitors = {}
        for name in names:
            monitor = self._studies.monitor(name)
            if monitor is None:
                with language(code):
                    raise HTTPException(404, tr("There is no study {name} here.", name=name))
            monitors[name] = monitor
        return monitors


def study_parts(monitors: Mapping[str, StudyMonitor], code: str) -> Parts:
    """Return the parts of studies, named by study and part."""
    return {
        f"{study}/{name}": part
        for study, monitor in monitors.items()
        for name, part in render_study(monitor.poll(), code).items()
    }


def list_parts(studies: Studies, code: str) -> Parts:
    """Return the list of studies as the one part of its page."""
    return {"/list": studies.render_list(code)}


def changed_parts(sent: Parts, parts: Parts) -> Parts:
    """Return the parts that differ from those sent; None for each that is gone."""
    changed = {name: part for name, part in parts.items() if name not in sent or sent[name] != part}
    return changed | dict.fromkeys(sent.keys() - parts.keys())


def encode(parts: Parts) -> str:
    """Return parts as one line of JSON."""
    return json.dumps(parts, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def chosen_language(request: Request) -> str:
    """Return the language of ``lang``, else the first known one that the browser prefers, else English."""
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
    """Return the address of the event stream of studies."""
    return "/events?" + urlencode([("lang", code), *(("study", name) for name in names)])


def page(
    request: Request, template: str, code: str, *, stream: str = "", status: int = 200, **values: object
) -> Response:
    """Render a page."""
    others = [(key, value) for key, value in request.query_params.multi_items() if key != "lang"]
    query = {each: urlencode([*others, ("lang", each)]) for each in LANGUAGES}
    with language(code):
        text = view.render(template, query=query, home=f"/?lang={code}", stream=stream, **values)
    return HTMLResponse(text, status_code=status, headers={"cache-control": "no-store"})


async def error_page(request: Request, error: Exception) -> Response:
    """Render an HTTP error."""
    assert isinstance(error, HTTPException)
    code = request.query_params.get("lang", "")
    code = code if code in LANGUAGES else LANGUAGES[0]
    with language(code):
        title = tr("This page cannot be shown")
    return page(request, "error.html.j2", code, status=error.status_code, title=title, text=error.detail)


async def asset(request: Request) -> Response:
    """Return a script, a style sheet or the icon; 304 where the browser has it already."""
    name = request.path_params["name"]
    if name not in _ASSETS:
        raise HTTPException(404, "Not found")
    if name == _FONT and not font_files("ko"):
        raise HTTPException(404, "Not found")
    content, tag = await asyncio.to_thread(asset_content, name)
    headers = {"etag": tag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=_TYPES[name.rsplit(".", 1)[-1]], headers=headers)


@cache
def asset_content(name: str) -> tuple[bytes, str]:
    """Return an asset's bytes and their entity tag."""
    if name == _SCRIPT:
        content = vega_script().encode()
    else:
        content = (font_files("ko")[0] if name == _FONT else _STATIC / name).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:16]}"'

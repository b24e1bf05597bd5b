"""Routes of the page: answers, refusals, languages and assets."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp

from lorascope.errors import InputError
from lorascope.store import StudyStore
from lorascope.web import app as app_module
from lorascope.web.app import Page, asset_content
from lorascope.web.studies import Studies, check_root
from support.asgi import ask, run

BuildStudy = Callable[..., Path]
ASSETS = ("page.js", "charts.js", "page.css", "icon.svg", "vega.js")


@pytest.fixture(scope="module")
def studies(build_study: BuildStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two studies, a stranger's folder and a file."""
    root = tmp_path_factory.mktemp("studies")
    build_study(root / "first")
    build_study(root / "sec ond", floors={4: 1.5, 16: 1.4})
    (root / "other").mkdir()
    (root / "notes.txt").write_text("secret notes", encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def kept(studies: Path) -> ASGIApp:
    """An application that keeps its monitors from request to request; its streams send once."""
    return Page(Studies(studies), lambda: True).app()


def app_of(root: Path) -> ASGIApp:
    """The application over a folder; its streams send once and end."""
    return Page(Studies(root), lambda: True).app()


def updates(body: bytes) -> list[dict]:
    return [json.loads(line.removeprefix("data: ")) for line in body.decode().splitlines() if line.startswith("data: ")]


def test_home_page_is_one_study_or_a_list(studies: Path) -> None:
    home = ask(app_of(studies / "first"), "/")
    assert home.status == 200
    assert 'data-study="first"' in home.text
    assert 'data-stream="/events?lang=en&amp;study=first"' in home.text
    listed = ask(app_of(studies), "/")
    assert 'data-part="list"' in listed.text
    [update] = updates(ask(app_of(studies), "/events?lang=en").body)
    assert '<a href="/study/first?lang=en">first</a>' in update["/list"]
    assert "/study/sec%20ond?lang=en" in update["/list"]
    assert "other" not in update["/list"]


def test_stream_begins_with_every_part(studies: Path) -> None:
    page = Page(Studies(studies), lambda: True)
    for app in (page.app(), page.app(), app_of(studies)):
        [update] = updates(ask(app, "/events?study=first&study=sec%20ond").body)
        for study, trials in (("first", {"r8", "r128", "r256"}), ("sec ond", {"r4", "r16"})):
            assert {f"{study}/{part}" for part in ("head", "status", "state", "trials", "live_charts")} <= update.keys()
            assert {f"{study}/lines/train/{trial}" for trial in trials} <= update.keys()


def stream(page: Page, polls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, *, heartbeat: float = 99.0) -> Any:
    """Everything that a stream sends while its polls return these parts, one after the other."""
    monkeypatch.setattr(app_module, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(app_module, "HEARTBEAT_SECONDS", heartbeat)
    left = [*polls]
    page._closing = lambda: len(left) == 1

    async def read() -> list[str]:
        return [message async for message in page._stream(lambda: left.pop(0))]

    return read()


def test_stream_sends_changed_parts_and_null_for_removed_ones(studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    polls: list[dict[str, Any]] = [
        {"a": 1, "b": [1]},
        {"a": 1, "b": [1]},
        {"a": 1, "b": [1, 2]},
        {"b": [1, 2], "c": None},
    ]
    sent = run(stream(Page(Studies(studies)), polls, monkeypatch))
    assert updates("".join(sent).encode()) == [{"a": 1, "b": [1]}, {"b": [1, 2]}, {"a": None, "c": None}]


def test_stream_of_an_unchanged_study_sends_heartbeats(studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = run(stream(Page(Studies(studies)), [{}] * 3, monkeypatch, heartbeat=0.0))
    assert sent == ["retry: 1000\n\n"] + ["event: heartbeat\ndata: 1\n\n"] * 3


def test_compare_page_shows_studies_side_by_side(studies: Path) -> None:
    answer = ask(app_of(studies), "/compare?study=first&study=sec%20ond")
    assert answer.status == 200
    assert answer.text.count("data-study=") == 2
    assert ask(app_of(studies), "/compare?study=first").status == 400
    assert ask(app_of(studies), "/compare?study=first&study=none").status == 404


@pytest.mark.parametrize(
    "address",
    [
        "/study/other", "/study/notes.txt", "/study/..", "/study/../../etc/passwd", "/study/%2e%2e%2fother",
        "/study/first/study.db", "/assets/page.html.j2", "/assets/../app.py", "/assets/%2e%2e%2fapp.py", "/study.db",
        "/events?study=..", "/events?study=/etc", "/nothing", "/study/", "/assets/", "/assets/vega.js/x",
    ],
)  # fmt: skip
def test_unknown_study_is_not_found(studies: Path, address: str) -> None:
    answer = ask(app_of(studies), address)
    assert answer.status == 404
    assert "secret notes" not in answer.text
    assert "Traceback" not in answer.text


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    path=st.text(max_size=30), names=st.lists(st.text(max_size=12), max_size=4), lang=st.none() | st.text(max_size=6),
    seen=st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=40),
)  # fmt: skip
def test_no_address_is_a_server_error(kept: ASGIApp, path: str, names: list[str], lang: str | None, seen: str) -> None:
    """Whatever is asked: an answer below 500, and the text that was given never comes back as HTML."""
    query = "&".join(f"study={quote(name, safe='')}" for name in ["first", *names])
    query += "" if lang is None else f"&lang={quote(lang, safe='')}"
    headers = {"last-event-id": seen, "accept-language": seen}
    for place in ("/" + quote(path, safe="/"), "/events", "/compare", f"/study/{quote(path, safe='')}"):
        answer = ask(kept, f"{place}?{query}", headers=headers)
        assert answer.status < 500
        assert "<script>" not in answer.text


def test_names_are_escaped(build_study: BuildStudy, tmp_path: Path) -> None:
    build_study(tmp_path / "<img src=x onerror=alert(1)>", model="<b>model</b>")
    build_study(tmp_path / "\"'><script>alert(1)</script>".replace("/", "\N{DIVISION SLASH}"))
    pages = [ask(app_of(tmp_path), "/").text]
    [update] = updates(ask(app_of(tmp_path), "/events").body)
    pages.append(update["/list"])
    for name in Studies(tmp_path).folders():
        pages.append(ask(app_of(tmp_path), f"/study/{quote(name, safe='')}").text)
        [update] = updates(ask(app_of(tmp_path), f"/events?study={quote(name, safe='')}").body)
        pages += [part for part in update.values() if isinstance(part, str)]
    assert len(pages) > 10
    for page in pages:
        for bad in ("<img src=x", "<script>alert", "<b>model"):
            assert bad not in page
    assert ask(app_of(tmp_path), "/study/<script>alert(1)").text.count("<script>") == 0


def test_pages_are_in_the_language_asked_for(studies: Path) -> None:
    app = app_of(studies / "first")
    assert '<html lang="ko">' in ask(app, "/?lang=ko").text
    assert '<html lang="ko">' in ask(app, "/", headers={"accept-language": "de-DE,ko-KR;q=0.8,en"}).text
    assert '<html lang="en">' in ask(app, "/", headers={"accept-language": "de"}).text
    assert '<html lang="en">' in ask(app, "/?lang=en", headers={"accept-language": "ko"}).text
    answer = ask(app, "/?lang=xx")
    assert answer.status == 404
    assert "choose one of: en, ko" in answer.text


@pytest.mark.parametrize("name", ASSETS)
def test_assets_are_cached(studies: Path, name: str) -> None:
    app = app_of(studies)
    answer = ask(app, f"/assets/{name}")
    assert answer.status == 200
    assert answer.body == asset_content(name)[0]
    again = ask(app, f"/assets/{name}", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status, again.body) == (304, b"")


def test_folder_without_a_study_is_refused(studies: Path, tmp_path: Path) -> None:
    check_root(studies)
    check_root(studies / "first")
    for folder, words in ((tmp_path / "none", "no folder"), (studies / "other", "no study")):
        with pytest.raises(InputError, match=words):
            check_root(folder)
    with pytest.raises(InputError, match="no folder"):
        check_root(studies / "notes.txt")


def test_empty_study_is_a_page(tmp_path: Path, studies: Path) -> None:
    """The folder is there before the records are."""
    spec = tmp_path / "new" / "study.yaml"
    spec.parent.mkdir()
    spec.write_bytes((studies / "first" / "study.yaml").read_bytes())
    for age, words in ((0, "Preparing the model and the rows"), (3600, "no run is active")):
        os.utime(spec, (time.time() - age,) * 2)
        [update] = updates(ask(app_of(tmp_path / "new"), "/events?study=new").body)
        assert update["new/problem"] == ""
        assert words in update["new/status"]
    StudyStore.create(tmp_path / "new" / "study.db").close()
    [update] = updates(ask(app_of(tmp_path / "new"), "/events?study=new").body)
    assert update["new/problem"] == ""
    assert "nothing is recorded yet" in update["new/status"]

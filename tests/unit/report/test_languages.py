"""A report in another language: beside the English one, with its own words, and summary.json as it was."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lorascope.charts import fonts
from lorascope.errors import InputError
from lorascope.language import current_language, language
from lorascope.report import write_report

MakeStudy = Callable[..., Path]


@pytest.fixture(autouse=True)
def any_font(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written does not depend on the fonts of the machine; how it is drawn is tested with the charts."""
    monkeypatch.setattr(fonts, "has_letters", lambda _: True)


def test_a_korean_report_stands_beside_the_english_one(make_study: MakeStudy) -> None:
    folder = make_study()
    english = write_report(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    korean = write_report(folder, lang="ko")
    assert (korean.report_html.name, korean.report_md.name) == ("report.ko.html", "report.ko.md")
    assert [path.name for path in korean.charts] == [path.name.replace(".png", ".ko.png") for path in english.charts]
    assert {path: path.read_bytes() for path in before} == before
    assert korean.summary_json == english.summary_json
    html = korean.report_html.read_text(encoding="utf-8")
    assert '<html lang="ko">' in html
    assert "랭크 128이 충분한 랭크 중 가장 작으며" in html
    assert '<html lang="en">' in english.report_html.read_text(encoding="utf-8")
    markdown = korean.report_md.read_text(encoding="utf-8")
    assert all(f"](charts/{path.name})" in markdown for path in korean.charts)
    assert current_language() == "en"


def test_the_same_records_give_the_same_korean_bytes(make_study: MakeStudy) -> None:
    folder = make_study()
    written = write_report(folder, lang="ko")
    files = (written.summary_json, written.report_md, written.report_html, *written.charts)
    before = [path.read_bytes() for path in files]
    assert write_report(folder, lang="ko") == written
    assert [path.read_bytes() for path in files] == before


def test_summary_json_is_english_inside_another_language_too(make_study: MakeStudy) -> None:
    folder = make_study()
    english = write_report(folder).summary_json.read_bytes()
    with language("ko"):
        written = write_report(folder)
    assert written.report_html.name == "report.html"
    assert written.summary_json.read_bytes() == english


def test_a_language_that_does_not_exist_and_a_missing_font_write_nothing(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_study()
    before = sorted(folder.iterdir())
    with pytest.raises(InputError, match="use one of: en, ko"):
        write_report(folder, lang="xx")
    monkeypatch.setattr(fonts, "has_letters", lambda _: False)
    with pytest.raises(InputError, match="empty boxes"):
        write_report(folder, lang="ko")
    assert sorted(folder.iterdir()) == before

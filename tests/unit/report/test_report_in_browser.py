"""The report in a real browser, opened from a file with the network cut."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorascope.report import write_report
from lorascope.spec.schema import StudySpec

MakeStudy = Callable[..., Path]
FADED = "path[opacity='0.06']"


@pytest.fixture(scope="module")
def report(build_study: MakeStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = StudySpec(ranks=(8, 128), learning_rates=(1e-4, 3e-4))
    folder = tmp_path_factory.mktemp("browser") / "study"
    return write_report(build_study(folder, spec=spec, floors={8: 1.3, 128: 1.2})).report_html


class Visit:
    """A page, what went wrong on it, and what it asked for."""

    def __init__(self, chromium: Any, report: Path, **options: Any) -> None:
        self.page = chromium.new_context(offline=True, **options).new_page()
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda said: self.wrong.append(said.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(report.as_uri())

    def draw(self, *names: str) -> None:
        """Scroll to charts until they are drawn."""
        for name in names:
            self.page.locator(f"[data-chart={name}]").scroll_into_view_if_needed()
            self.page.locator(f"[data-chart={name}] .vega-embed svg").wait_for()

    def faded(self, name: str) -> int:
        return int(self.page.locator(f"[data-chart={name}] {FADED}").count())


def test_report_draws_every_chart_offline(chromium: Any, report: Path) -> None:
    visit = Visit(chromium, report)
    charts = visit.page.locator("[data-chart]").evaluate_all("all => all.map(one => one.dataset.chart)")
    assert len(charts) >= 13
    visit.draw(*charts)
    assert visit.asked == [report.as_uri()]
    assert visit.wrong == []


def test_report_rank_selection_applies_to_every_chart(chromium: Any, report: Path) -> None:
    visit = Visit(chromium, report)
    visit.draw("train_loss", "eval_loss")
    assert (visit.faded("train_loss"), visit.faded("eval_loss")) == (0, 0)
    button = visit.page.locator("#choose button", has_text="128")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert visit.faded("train_loss") > 0
    assert visit.faded("eval_loss") > 0
    visit.draw("eval_loss_by_rate")
    assert visit.faded("eval_loss_by_rate") > 0
    button.click()
    assert (visit.faded("train_loss"), visit.faded("eval_loss_by_rate")) == (0, 0)
    visit.page.locator("[data-chart=eval_loss] .role-legend-label text", has_text="8").first.click()
    assert visit.page.locator("#choose button[aria-pressed=true]").inner_text() == "8"
    assert visit.faded("train_loss") > 0
    visit.page.locator("[data-chart=train_loss] .role-legend-label text", has_text="8").first.click()
    assert visit.page.locator("#choose button[aria-pressed=true]").count() == 0
    assert visit.faded("eval_loss") == 0
    assert visit.wrong == []


def test_report_curve_axis_can_be_chosen(chromium: Any, report: Path) -> None:
    visit = Visit(chromium, report)
    visit.draw("train_loss")
    place = visit.page.locator("[data-chart=train_loss]")
    assert place.locator("text=tokens trained on").count() == 1  # the choice itself
    place.locator("select").select_option("tokens")
    place.locator("svg text", has_text="tokens trained on").wait_for()
    lines = place.locator("path[stroke-width='1']").count()
    place.get_by_label("single steps").uncheck()
    visit.page.wait_for_function(
        f"document.querySelectorAll(\"[data-chart=train_loss] path[stroke-width='1']\").length < {lines}"
    )
    for label in ("log x", "log y", "all trials"):
        place.get_by_label(label).check()
    place.locator("path[opacity='0.45']").first.wait_for(state="attached")
    assert visit.wrong == []


def test_report_without_scripts_shows_static_charts(chromium: Any, report: Path) -> None:
    visit = Visit(chromium, report, java_script_enabled=False)
    assert visit.page.locator("figure > svg").count() == visit.page.locator("[data-chart]").count()
    assert not visit.page.locator("#choose").is_visible()
    assert visit.wrong == []


def test_report_policy_blocks_other_scripts(chromium: Any, report: Path) -> None:
    visit = Visit(chromium, report)
    visit.page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
        }"""
    )
    assert visit.page.evaluate("window.ran") is None
    assert any("Content Security Policy" in text for text in visit.wrong)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_fits_a_phone(chromium: Any, report: Path, scheme: str) -> None:
    visit = Visit(chromium, report, viewport={"width": 390, "height": 800}, color_scheme=scheme)
    visit.draw("train_loss", "memory_split")
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390
    inks = visit.page.locator("[data-chart=train_loss] .role-axis-title text").evaluate_all(
        "all => all.map(one => getComputedStyle(one).fill)"
    )
    soft = visit.page.evaluate("getComputedStyle(document.querySelector('.note')).color")
    assert set(inks) == {soft}

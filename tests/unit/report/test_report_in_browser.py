"""The report in a real browser, opened from a file with the network cut."""

import re
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
        context = chromium.new_context(offline=True, **options)
        self.page = context.new_page()
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda said: self.wrong.append(said.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(report.as_uri())

    def draw(self, *names: str) -> None:
        """Open what hides charts, and scroll to them until they are drawn."""
        self.page.evaluate("for (const folded of document.querySelectorAll('details')) folded.open = true")
        for name in names:
            choice = self.page.locator(f"label[for=show-{name}]")
            if choice.count():
                choice.click()
            self.page.locator(f"[data-chart={name}]").scroll_into_view_if_needed()
            self.page.locator(f"[data-chart={name}] .vega-embed svg").wait_for()

    def faded(self, name: str) -> int:
        return int(self.page.locator(f"[data-chart={name}] {FADED}").count())

    def runs(self, column: int) -> list[str]:
        """Cells of a column of the table of runs, as far as its rows are shown."""
        cells = f"table.trials tbody tr:not([hidden]) > :nth-child({column})"
        return [text.strip() for text in self.page.locator(cells).all_inner_texts()]


def test_report_draws_every_chart_offline(chromium: Any, report: Path) -> None:
    visit = Visit(chromium, report)
    charts = visit.page.locator("[data-chart]").evaluate_all("all => all.map(one => one.dataset.chart)")
    assert len(charts) >= 13
    visit.draw(*charts)
    assert visit.asked == [report.as_uri()]
    assert visit.wrong == []


def test_report_rank_selection_applies_to_every_chart(chromium: Any, report: Path) -> None:
    visit = Visit(chromium, report)
    visit.draw("eval_loss_by_rate", "eval_loss")
    assert (visit.faded("eval_loss_by_rate"), visit.faded("eval_loss")) == (0, 0)
    button = visit.page.locator("#choose button", has_text="128")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert visit.faded("eval_loss_by_rate") > 0
    assert visit.faded("eval_loss") > 0
    visit.draw("train_loss")
    assert visit.faded("train_loss") > 0
    button.click()
    assert (visit.faded("train_loss"), visit.faded("eval_loss_by_rate")) == (0, 0)
    visit.page.locator("[data-chart=eval_loss_by_rate] .role-legend-label text", has_text="8").first.click()
    assert visit.page.locator("#choose button[aria-pressed=true]").inner_text() == "8"
    assert visit.faded("train_loss") > 0
    visit.page.locator("[data-chart=train_loss] .role-legend-label text", has_text="8").first.click()
    assert visit.page.locator("#choose button[aria-pressed=true]").count() == 0
    assert visit.faded("eval_loss_by_rate") == 0
    assert visit.wrong == []


def test_report_shows_one_loss_curve_at_a_time(chromium: Any, report: Path) -> None:
    visit = Visit(chromium, report)
    shown = "#curves .chart:visible"
    assert visit.page.locator(shown).evaluate_all("all => all.map(one => one.dataset.chart)") == ["eval_loss"]
    visit.draw("learning_rate")
    assert visit.page.locator(shown).evaluate_all("all => all.map(one => one.dataset.chart)") == ["learning_rate"]
    assert visit.wrong == []


def test_report_curve_axis_and_smoothing_can_be_chosen(chromium: Any, report: Path) -> None:
    visit = Visit(chromium, report)
    visit.draw("train_loss")
    place = visit.page.locator("[data-chart=train_loss]")
    along, smoothing = place.locator("select").nth(0), place.locator("select").nth(1)
    along.select_option("tokens")
    place.locator("svg text", has_text="tokens trained on").wait_for()
    lines = place.locator("path[stroke-width='1']").count()
    place.get_by_label("single steps").uncheck()
    visit.page.wait_for_function(
        f"document.querySelectorAll(\"[data-chart=train_loss] path[stroke-width='1']\").length < {lines}"
    )
    curve = "document.querySelector(\"[data-chart=train_loss] path[stroke-width='2']\").getAttribute('d')"
    before = visit.page.evaluate(curve)
    smoothing.select_option("smoother")
    visit.page.wait_for_function(f"before => {curve} !== before", arg=before)
    for label in ("log x", "log y", "all trials"):
        place.get_by_label(label).check()
    place.locator("path[opacity='0.45']").first.wait_for(state="attached")
    assert visit.wrong == []


def test_report_crosshair_shows_every_rank_at_the_pointer(chromium: Any, report: Path) -> None:
    visit = Visit(chromium, report)
    visit.draw("eval_loss")
    box = visit.page.locator("[data-chart=eval_loss] svg").bounding_box()
    visit.page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    tip = visit.page.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    words = tip.inner_text()
    assert "rank 8" in words
    assert "rank 128" in words
    assert visit.page.locator("[data-chart=eval_loss] line[stroke-dasharray='2,3']").count() >= 1
    visit.page.mouse.move(0, 0)
    tip.wait_for(state="hidden")
    assert visit.wrong == []


def test_report_charts_follow_the_window(chromium: Any, report: Path) -> None:
    """Also when it is resized while a chart is being drawn."""
    visit = Visit(chromium, report, viewport={"width": 1200, "height": 800})
    visit.page.locator("[data-chart=eval_loss]").scroll_into_view_if_needed()
    visit.page.set_viewport_size({"width": 420, "height": 800})
    visit.draw("eval_loss")
    fits = "(() => { const svg = document.querySelector('[data-chart=eval_loss] .vega-embed svg');"
    fits += "return svg && Math.abs(svg.viewBox.baseVal.width - svg.closest('figure').clientWidth) < 60 })()"
    visit.page.wait_for_function(fits)
    visit.page.set_viewport_size({"width": 1200, "height": 800})
    visit.page.wait_for_function(fits)
    assert visit.wrong == []


def test_report_copies_commands_and_the_write_up(chromium: Any, report: Path) -> None:
    visit = Visit(chromium, report)
    kept = "{value: {writeText: async (text) => { window.kept = text; }}}"
    visit.page.evaluate(f"Object.defineProperty(navigator, 'clipboard', {kept})")
    button = visit.page.locator(".next .command", has_text="lorascope export").locator("button")
    button.click()
    visit.page.wait_for_function("window.kept?.startsWith('lorascope export ')")
    assert button.inner_text() == "copied"
    visit.page.locator("[data-copy=en-latex]").click()
    visit.page.wait_for_function("window.kept.includes('tabular')")
    visit.page.locator("[data-copy=ko-markdown]").click()
    visit.page.wait_for_function("window.kept.includes('랭크')")
    assert visit.wrong == []


def test_report_runs_are_sorted_and_filtered(chromium: Any, report: Path) -> None:
    visit = Visit(chromium, report)
    losses = visit.runs(9)
    assert len(losses) == 4
    heading = visit.page.locator("table.trials thead th").nth(8)
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert visit.runs(9) == sorted(losses, key=float)
    heading.locator("button").click()
    assert visit.runs(9) == sorted(losses, key=float, reverse=True)
    by_rank, by_rate = visit.page.locator(".filters select").all()
    by_rank.select_option("128")
    assert set(visit.runs(2)) == {"128"}
    by_rate.select_option("0.0001")
    assert visit.runs(1) == ["r128-lr0.0001"]
    assert visit.wrong == []


def test_report_link_opens_what_is_folded(chromium: Any, report: Path) -> None:
    visit = Visit(chromium, report)
    tests = visit.page.locator("#tests")
    assert tests.get_attribute("open") is None
    visit.page.locator("#tests summary").click()
    assert tests.get_attribute("open") is not None
    visit.page.evaluate("location.hash = 'method'")
    visit.page.wait_for_function("document.getElementById('method').open")
    assert visit.wrong == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_report_passes_axe(chromium: Any, report: Path, scheme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is missing")
    visit = Visit(chromium, report, viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True)
    visit.draw("eval_loss", "memory_split")
    found = [
        f"{violation['id']}: {[node['html'] for node in violation['nodes']]}"
        for violation in axe.Axe().run(visit.page).response["violations"]
        if violation["impact"] in ("serious", "critical")
    ]
    assert found == []
    sizes = visit.page.locator("h1, h2, h3").evaluate_all(
        "all => all.map(one => [one.tagName, parseFloat(getComputedStyle(one).fontSize)])"
    )
    largest = {tag: max(size for name, size in sizes if name == tag) for tag in ("H1", "H2", "H3")}
    assert largest["H1"] > largest["H2"] > largest["H3"] - 0.01


def test_report_in_sight_prints_on_four_pages(chromium: Any, report: Path) -> None:
    visit = Visit(chromium, report)
    visit.page.locator("[data-chart=eval_loss] .vega-embed svg").wait_for()
    pages = re.findall(rb"/Type\s*/Page[^s]", visit.page.pdf(format="A4"))
    assert 1 <= len(pages) <= 4


def test_report_without_scripts_shows_static_charts(chromium: Any, report: Path) -> None:
    visit = Visit(chromium, report, java_script_enabled=False)
    assert visit.page.locator("figure > svg").count() == visit.page.locator("[data-chart]").count()
    assert not visit.page.locator("#choose").is_visible()
    assert visit.page.locator(".interval-drawn").count() == 2
    visit.page.locator("label[for=show-train_loss]").click()
    assert visit.page.locator("#curves .chart:visible").get_attribute("data-chart") == "train_loss"
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
    cells = visit.page.locator(".overview tbody tr").nth(1).locator("td")
    assert cells.nth(0).bounding_box()["y"] < cells.nth(2).bounding_box()["y"]  # a row is a card of facts
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390
    inks = visit.page.locator("[data-chart=train_loss] .role-axis-title text").evaluate_all(
        "all => all.map(one => getComputedStyle(one).fill)"
    )
    soft = visit.page.evaluate("getComputedStyle(document.querySelector('.note')).color")
    assert set(inks) == {soft}

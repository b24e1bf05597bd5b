"""Layout of the live page: widths, light and dark, accessibility, selections."""

from collections.abc import Callable
from typing import Any

import pytest

Open = Callable[..., Any]
HERE = {"127.0.0.1"}
DARK = "rgb(20, 22, 26)"


@pytest.mark.parametrize(
    ("width", "scheme", "code"),
    [(390, "light", "ko"), (390, "dark", "en"), (1200, "dark", "ko")],
)
@pytest.mark.parametrize("place", ["/?", "/study/second?", "/compare?study=first&study=second&"])
def test_pages_fit_the_width_and_pass_axe(
    visit: Open, served: str, place: str, width: int, scheme: str, code: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is missing")
    options = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    seen = visit(f"{served}{place}lang={code}", **options)
    if place == "/?":
        seen.wait("document.querySelectorAll('[data-part=list] a').length === 2")
    else:
        seen.wait("document.querySelector('[data-part=result] h1')")
        seen.wait("document.querySelector('[data-chart=train_loss] canvas')")
    assert seen.page.evaluate("document.documentElement.lang") == code
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    shown = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (shown == DARK) == (scheme == "dark")
    found = [
        f"{violation['id']}: {[node['html'] for node in violation['nodes']]}"
        for violation in axe.Axe().run(seen.page).response["violations"]
        if violation["impact"] in ("serious", "critical")
    ]
    assert found == []
    assert seen.asked == HERE
    assert seen.errors == []


def test_rank_buttons_filter_the_curves(visit: Open, served: str) -> None:
    seen = visit(f"{served}/study/first")
    seen.points("=== 120")
    seen.page.get_by_role("button", name="rank 128", exact=True).click()
    seen.points("=== 40")
    seen.page.get_by_role("button", name="rank 8", exact=True).click()
    seen.points("=== 80")
    for rank in ("8", "128"):
        seen.page.get_by_role("button", name=f"rank {rank}", exact=True).click()
    seen.points("=== 120")


def test_chips_filter_rates_and_seeds(visit: Open, served: str) -> None:
    seen = visit(f"{served}/study/second?lang=en")
    seen.points("=== 640")
    seen.page.get_by_role("button", name="learning rate 0.001", exact=True).click()
    seen.points("=== 320")
    seen.page.get_by_role("button", name="seed 1", exact=True).click()
    seen.points("=== 160")


def test_list_page_compares_chosen_studies(visit: Open, served: str) -> None:
    seen = visit(f"{served}/?lang=en")
    for name in ("first", "second"):
        seen.page.check(f"input[value={name}]")
    seen.page.get_by_role("button", name="Compare selected studies").click()
    seen.wait("document.querySelectorAll('[data-part=result] h1').length === 2")
    assert not seen.page.is_visible("#different-rows")
    # Their best trials lie on one axis, and the settings that differ are listed.
    seen.wait("document.querySelector('[data-overlay] [data-chart=train_loss] canvas')")
    rows = seen.page.evaluate(
        "import('/assets/page.js').then(page => [...page.studies.values()][0].charts.rows('train').bold_rows)"
    )
    assert {row["study"] for row in rows} == {"first", "second"}
    settings = seen.page.locator("table").first.locator("tbody th").all_inner_texts()
    assert "ranks" in settings
    assert "model" not in settings


def test_chart_follows_a_resize_while_it_is_drawn(visit: Open, served: str) -> None:
    """The drawing that is under way fails to see the new width; the chart is drawn again when it ends."""
    seen = visit(f"{served}/study/first?lang=en", viewport={"width": 1200, "height": 800})
    seen.points("=== 120")
    seen.page.evaluate("""import('/assets/page.js').then((page) => {
        const charts = [...page.studies.values()][0].charts, chart = charts.charts.get('eval_loss');
        const embed = charts.embed.bind(charts);
        charts.embed = async (one, spec) => {
            if (one === chart && !window.held) await new Promise((go) => { window.held = go; });
            await embed(one, spec);
        };
    })""")
    seen.page.set_viewport_size({"width": 800, "height": 800})
    seen.wait("window.held")
    seen.page.set_viewport_size({"width": 400, "height": 800})
    seen.page.evaluate("window.held()")
    seen.wait("document.querySelector('[data-chart=eval_loss] canvas').clientWidth <= 400")


def test_crosshair_names_the_trial(visit: Open, served: str) -> None:
    seen = visit(f"{served}/study/second?lang=en")
    seen.wait("document.querySelector('[data-chart=eval_loss] canvas')")
    chart = seen.page.locator("[data-chart=eval_loss] canvas")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    seen.page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    tip = seen.page.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    words = tip.inner_text()
    assert all(name in words for name in ("rank", "learning rate", "seed", "step", "held-out loss"))

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
        seen.wait("document.querySelector('[data-part=result] .verdict')")
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
    seen.page.get_by_role("button", name="128", exact=True).click()
    seen.points("=== 80")
    seen.page.get_by_role("button", name="128", exact=True).click()
    seen.points("=== 120")


def test_list_page_compares_chosen_studies(visit: Open, served: str) -> None:
    seen = visit(f"{served}/?lang=en")
    for name in ("first", "second"):
        seen.page.check(f"input[value={name}]")
    seen.page.get_by_role("button", name="Compare selected studies").click()
    seen.wait("document.querySelectorAll('[data-part=result] .verdict').length === 2")
    assert not seen.page.is_visible("#different-rows")

"""The registry of charts: one module and its name there make a chart of the report and of the live page."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from lorascope.analysis import load_study, summarize_data
from lorascope.charts import plots, registry
from lorascope.charts.chart import SectionName
from lorascope.charts.registry import make_charts
from lorascope.report import write_report
from lorascope.web.live_charts import summary_charts
from support import seeds_chart

MakeStudy = Callable[..., Path]


def test_registry_lists_every_plot_module_once() -> None:
    files = {path.stem for path in Path(plots.__file__).parent.glob("*.py")} - {"__init__"}
    assert sorted(registry.MODULES) == sorted(files)


def test_registry_order_is_that_of_the_report(make_study: MakeStudy) -> None:
    study = load_study(make_study())
    sections = [chart.section for chart in make_charts(study, summarize_data(study)).values()]
    order = list(get_args(SectionName))
    assert [order.index(section) for section in sections] == sorted(order.index(section) for section in sections)


def test_registered_chart_module_appears_in_report_and_page(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, f"{plots.__name__}.seeds_chart", seeds_chart)
    monkeypatch.setattr(registry, "MODULES", (*registry.MODULES, "seeds_chart"))
    folder = make_study()
    paths = write_report(folder)
    assert folder / "charts" / "seeds_by_rank.png" in paths.charts
    markdown = paths.report_md.read_text(encoding="utf-8")
    assert "### Seeds by rank\n\n![Seeds by rank](charts/seeds_by_rank.png)\n\nHow many seeds" in markdown
    assert markdown.index("## Memory and bottlenecks") < markdown.index("### Seeds by rank")
    html = paths.report_html.read_text(encoding="utf-8")
    assert '<div class="chart" data-chart="seeds_by_rank">' in html
    assert 'aria-label="Seeds by rank. How many seeds each rank was trained with."' in html
    data = re.search(r'id="page-data">(.*?)</script>', html, flags=re.DOTALL)
    assert data is not None
    assert json.loads(data[1])["charts"]["seeds_by_rank"]["layer"][0]["data"]["values"][0] == {"rank": "8", "seeds": 1}
    study = load_study(folder)
    assert "seeds_by_rank" in [chart["name"] for chart in summary_charts(study, summarize_data(study))]

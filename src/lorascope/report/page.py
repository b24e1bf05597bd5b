"""Interactive parts of report.html: rendered charts, their specifications, scripts and the policy that allows them."""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorascope.charts.chart import Chart
from lorascope.charts.colors import rank_colors
from lorascope.charts.render import RenderedChart, svg_to_html
from lorascope.charts.vega_bundle import vega_script
from lorascope.text.language import tr

_SCRIPT = Path(__file__).parent / "templates" / "report.js"


@dataclass(frozen=True, kw_only=True, slots=True)
class PageParts:
    """Parts that Markdown does not have."""

    figures: Mapping[str, str]
    """Fragment of HTML for each chart, by name."""
    data: str
    """JSON for the scripts."""
    scripts: tuple[str, ...]
    """In the order they run."""
    policy: str
    """Sources of a content-security policy that allow these scripts only."""


def page_parts(charts: Mapping[str, Chart], rendered: Mapping[str, RenderedChart], ranks: Sequence[int]) -> PageParts:
    """Put together the interactive parts; without charts there are no scripts."""
    scripts = (vega_script(), _SCRIPT.read_text(encoding="utf-8")) if charts else ()
    return PageParts(
        figures={name: svg_to_html(rendered[name].svg, label=chart.alt_text) for name, chart in charts.items()},
        data=_page_data(charts, ranks),
        scripts=scripts,
        policy=_script_policy(scripts),
    )


def _page_data(charts: Mapping[str, Chart], ranks: Sequence[int]) -> str:
    """Write JSON that may stand inside a script element."""
    content = {
        "charts": {name: chart.page_spec for name, chart in charts.items()},
        "ranks": {str(rank): color for rank, color in rank_colors(ranks).items()},
        "words": {
            "ranks": tr("Show ranks"),
            "raw": tr("single steps"),
            "others": tr("all trials"),
            "along": tr("along"),
            "logX": tr("log x"),
            "logY": tr("log y"),
        },
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # only these could end a script element or begin a comment in it
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _script_policy(scripts: Iterable[str]) -> str:
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    return " ".join(f"'sha256-{digest}'" for digest in hashes)

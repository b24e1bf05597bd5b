"""Interactive parts of report.html: rendered charts, their specifications, scripts and the policy that allows them."""

import base64
import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorascope.analysis import StudySummary
from lorascope.charts.chart import Chart
from lorascope.charts.colors import rank_colors
from lorascope.charts.render import RenderedChart, svg_to_html
from lorascope.charts.vega_bundle import vega_script
from lorascope.text import write_up
from lorascope.text.language import LANGUAGES, language, tr

_SCRIPT = Path(__file__).parent / "templates" / "report.js"


@dataclass(frozen=True, kw_only=True, slots=True)
class PageParts:
    """Parts that Markdown does not have."""

    figures: Mapping[str, str]
    """Fragment of HTML for each chart, by name."""
    data: str
    """JSON for the script."""
    script: str
    library: str
    """Vega, compressed and in base64: it is most of a page. The script unpacks it when the first chart is drawn."""
    policy: str
    """Sources of a content-security policy that allow these scripts only."""


def page_parts(
    summary: StudySummary, charts: Mapping[str, Chart], rendered: Mapping[str, RenderedChart], ranks: Sequence[int]
) -> PageParts | None:
    """Put together the interactive parts; None without charts."""
    if not charts:
        return None
    script, library = _SCRIPT.read_text(encoding="utf-8"), vega_script()
    return PageParts(
        figures={name: svg_to_html(rendered[name].svg, label=chart.alt_text) for name, chart in charts.items()},
        data=_page_data(summary, charts, ranks),
        script=script,
        library=base64.b64encode(gzip.compress(library.encode(), mtime=0)).decode(),
        policy=_script_policy((script, library)),
    )


def _page_data(summary: StudySummary, charts: Mapping[str, Chart], ranks: Sequence[int]) -> str:
    """Write JSON that may stand inside a script element."""
    content = {
        "charts": {name: chart.page_spec for name, chart in charts.items()},
        "ranks": {str(rank): color for rank, color in rank_colors(ranks).items()},
        "copies": _copies(summary),
        "words": {
            "ranks": tr("Show ranks"),
            "raw": tr("single steps"),
            "others": tr("all trials"),
            "along": tr("along"),
            "smoothing": tr("smoothing"),
            "logX": tr("log x"),
            "logY": tr("log y"),
            "copied": tr("copied"),
            "all": tr("all"),
        },
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # only these could end a script element or begin a comment in it
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _copies(summary: StudySummary) -> dict[str, str]:
    """Return the write-up by language and form."""
    copies = {}
    for code in LANGUAGES:
        with language(code):
            copies[f"{code}-markdown"] = write_up.markdown(summary)
            copies[f"{code}-latex"] = write_up.latex(summary)
    return copies


def _script_policy(scripts: Iterable[str]) -> str:
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    return " ".join(f"'sha256-{digest}'" for digest in hashes)

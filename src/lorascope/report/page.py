"""What the page needs beside its words: drawn charts, their specifications, and the script that answers the pointer."""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lorascope.charts.chart import Chart
from lorascope.charts.colors import rank_colors
from lorascope.text.language import tr

_SCRIPT = Path(__file__).parent / "templates" / "report.js"


def page_script() -> str:
    """Read the script that draws a page's specifications and links their choice of ranks."""
    return _SCRIPT.read_text(encoding="utf-8")


def script_policy(scripts: Iterable[str]) -> str:
    """Write the sources of a content-security policy that allow these scripts and no other."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    return " ".join(f"'sha256-{digest}'" for digest in hashes)


def page_data(charts: Mapping[str, Chart], ranks: Sequence[int]) -> str:
    """Write what the script reads as JSON that may stand inside a script element."""
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
    # In a script element only these could end it or begin a comment
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")

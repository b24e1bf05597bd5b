"""Write the report's files: each appears whole or not at all, and the same records give the same bytes."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from lorascope.analysis import StudySummary, load_study, summarize_data
from lorascope.report.predicted import predicted_sections
from lorascope.report.readings_view import doubling_table, grid_table, order_lines, reading_table
from lorascope.report.usage import usage_sections
from lorascope.report.view import claims_table, environment_facts, rank_table, study_facts, trial_table

if TYPE_CHECKING:
    from lorascope.report.pictures import Picture

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportPaths:
    """The files that were written."""

    summary_json: Path
    report_md: Path
    report_html: Path
    charts: tuple[Path, ...]


def write_report(folder: Path) -> ReportPaths:
    """Summarise the study in ``folder`` and write its report there. Raises InputError when it is not a study."""
    from lorascope.report.pictures import draw  # noqa: PLC0415 - the drawing library takes half a second to import

    data = load_study(folder)
    summary = summarize_data(data)
    pictures = draw(data, summary)
    paths = ReportPaths(
        summary_json=folder / "summary.json",
        report_md=folder / "report.md",
        report_html=folder / "report.html",
        charts=tuple(folder / "charts" / f"{picture.name}.png" for picture in pictures),
    )
    if pictures:
        (folder / "charts").mkdir(exist_ok=True)
    for path, picture in zip(paths.charts, pictures, strict=True):
        _replace(path, picture.png)
    _replace(paths.report_md, render("report.md.j2", summary, pictures).encode())
    _replace(paths.report_html, render("report.html.j2", summary, pictures).encode())
    _replace(paths.summary_json, summary.to_json().encode())
    return paths


def render(template: str, summary: StudySummary, pictures: Sequence["Picture"]) -> str:
    """Fill one template."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(enabled_extensions=("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = escape_markdown
    return environment.get_template(template).render(
        summary=summary,
        pictures=pictures,
        ranks=rank_table(summary),
        trials=trial_table(summary),
        claims=claims_table(summary),
        show_trials=len(summary.trials) > len(summary.ranks)
        or not all(t.outcome == "finished" for t in summary.trials),
        study_facts=study_facts(summary),
        environment_facts=environment_facts(summary),
        readings=reading_table(summary),
        doublings=doubling_table(summary),
        grid=grid_table(summary),
        order_lines=order_lines(summary),
        usage=(*usage_sections(summary), *predicted_sections(summary)),
    )


def escape_markdown(text: str) -> str:
    """Take the meaning from every sign Markdown or HTML gives one, and keep the text on its line."""
    one_line = " ".join(text.split())
    escaped = re.sub(r"([\\`*_\[\]|#~])", r"\\\1", one_line)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)

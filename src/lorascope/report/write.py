"""Write the report's files: each appears whole or not at all, and the same records give the same bytes."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from lorascope.analysis import StudySummary, load_study, summarize_data
from lorascope.language import current_language, language
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


def write_report(folder: Path, *, lang: str = "en") -> ReportPaths:
    """Summarise the study in ``folder`` and write its report there.

    The report of another language than English stands beside the English one, as report.ko.html. summary.json, which
    programs read, is English whatever the language.

    Raises:
        InputError: the folder is not a study, there is no such language, or no font to draw it with.
    """
    with language(lang):
        return _write(folder)


def _write(folder: Path) -> ReportPaths:
    from lorascope.charts.fonts import check_fonts  # noqa: PLC0415 - the drawing library takes half a second to import
    from lorascope.report.pictures import draw  # noqa: PLC0415

    data = load_study(folder)
    check_fonts()
    summary = summarize_data(data)
    pictures = draw(data, summary)
    ending = _ending()
    paths = ReportPaths(
        summary_json=folder / "summary.json",
        report_md=folder / f"report{ending}.md",
        report_html=folder / f"report{ending}.html",
        charts=tuple(folder / "charts" / f"{picture.name}{ending}.png" for picture in pictures),
    )
    if pictures:
        (folder / "charts").mkdir(exist_ok=True)
    for path, picture in zip(paths.charts, pictures, strict=True):
        _replace(path, picture.png)
    _replace(paths.report_md, render("report.md.j2", summary, pictures).encode())
    _replace(paths.report_html, render("report.html.j2", summary, pictures).encode())
    if ending:
        with language("en"):
            summary = summarize_data(data)
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
        language=current_language(),
        ending=_ending(),
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


def _ending() -> str:
    """Tell the files of another language from the English ones."""
    return "" if current_language() == "en" else f".{current_language()}"


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

"""Write the report's files: each appears whole or not at all, and the same records give the same bytes."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from lorascope.analysis import StudySummary, load_study, summarize_data
from lorascope.atomic import write_whole
from lorascope.charts.chart import Chart
from lorascope.charts.colors import rank_colors
from lorascope.charts.fonts import check_fonts
from lorascope.charts.registry import make_charts
from lorascope.charts.render import Drawing, draw_all, script, svg_to_html
from lorascope.charts.vega import Spec
from lorascope.report.page import page_data, page_script, script_policy
from lorascope.report.provenance import environment_facts, method_text, study_facts
from lorascope.report.sections import report_sections
from lorascope.store.folder import StudyFolder
from lorascope.text.language import current_language, language, tr
from lorascope.text.say import say
from lorascope.text.summary_json import summary_json
from lorascope.text.tables.ranks import rank_table

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportPaths:
    """The files that were written."""

    summary_json: Path
    report_md: Path
    report_html: Path
    charts: tuple[Path, ...]
    """Each chart as PNG; an SVG of the same name stands beside it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PageParts:
    """What only the page has."""

    figures: Mapping[str, str]
    """Each chart drawn, by name, as a fragment of HTML."""
    data: str
    """What the script reads."""
    scripts: tuple[str, ...]
    """Scripts, in the order they run."""
    policy: str
    """Sources that allow those scripts only."""


DrawCharts = Callable[[Mapping[str, Spec]], Mapping[str, Drawing]]


def write_report(folder: Path, *, lang: str = "en", draw_charts: DrawCharts = draw_all) -> ReportPaths:
    """Summarise the study in ``folder`` and write its report there.

    The report of another language than English stands beside the English one, as report.ko.html. summary.json, which
    programs read, is English whatever the language.

    Raises:
        InputError: the folder is not a study, there is no such language, or no font to draw it with.
    """
    with language(lang):
        return _write(folder, draw_charts)


def _write(folder: Path, draw_charts: DrawCharts) -> ReportPaths:
    data = load_study(folder)
    check_fonts()
    summary = summarize_data(data)
    charts = make_charts(data, summary)
    drawn = draw_charts({name: chart.spec for name, chart in charts.items()})
    ending, study = _ending(), StudyFolder(folder)
    paths = ReportPaths(
        summary_json=study.summary,
        report_md=study.report("md", ending),
        report_html=study.report("html", ending),
        charts=tuple(study.charts / f"{name}{ending}.png" for name in charts),
    )
    if charts:
        study.charts.mkdir(exist_ok=True)
    for path, drawing in zip(paths.charts, drawn.values(), strict=True):
        write_whole(path, drawing.png, derived=True)
        write_whole(path.with_suffix(".svg"), drawing.svg, derived=True)
    write_whole(paths.report_md, render("report.md.j2", summary, charts), derived=True)
    page = _page_parts(charts, drawn, data.ranks)
    write_whole(paths.report_html, render("report.html.j2", summary, charts, page), derived=True)
    if ending:
        with language("en"):
            summary = summarize_data(data)
    write_whole(paths.summary_json, summary_json(summary), derived=True)
    return paths


def render(template: str, summary: StudySummary, charts: Mapping[str, Chart], page: PageParts | None = None) -> str:
    """Fill one template; without ``page`` there are no charts to point at."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(enabled_extensions=("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = escape_markdown
    environment.filters["fence"] = fence_of
    environment.filters["say"] = say
    environment.globals["tr"] = tr
    return environment.get_template(template).render(
        ending=_ending(),
        summary=summary,
        language=current_language(),
        page=page,
        colors=rank_colors([part.rank for part in summary.ranks]),
        ranks=rank_table(summary),
        sections=report_sections(summary, charts.values()),
        study_facts=study_facts(summary),
        environment_facts=environment_facts(summary),
        method=method_text(summary),
    )


def _page_parts(charts: Mapping[str, Chart], drawn: Mapping[str, Drawing], ranks: Sequence[int]) -> PageParts:
    scripts = (script(), page_script()) if charts else ()
    return PageParts(
        figures={name: svg_to_html(drawn[name].svg, label=chart.alt_text) for name, chart in charts.items()},
        data=page_data(charts, ranks),
        scripts=scripts,
        policy=script_policy(scripts),
    )


def _ending() -> str:
    """Tell the files of another language from the English ones."""
    return "" if current_language() == "en" else f".{current_language()}"


def escape_markdown(text: str) -> str:
    """Take the meaning from every sign Markdown or HTML gives one, and keep the text on its line."""
    one_line = " ".join(text.split())
    escaped = re.sub(r"([\\`*_\[\]|#~])", r"\\\1", one_line)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def fence_of(text: str) -> str:
    """Return a fence of backticks that nothing in ``text`` can close."""
    return "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))

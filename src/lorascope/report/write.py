"""Write the report's files, each atomically; the same records give the same bytes."""

import csv
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lorascope.analysis import StudyData, StudySummary, load_study, summarize_data
from lorascope.analysis.samples import ComparedAnswers, answers_jsonl, compare_answers
from lorascope.atomic import write_whole
from lorascope.charts.chart import Chart
from lorascope.charts.colors import rank_colors
from lorascope.charts.fonts import check_fonts
from lorascope.charts.registry import make_charts
from lorascope.charts.render import RenderedChart, render_charts
from lorascope.charts.vega import Spec
from lorascope.records import ShownRow
from lorascope.report.assignment import assignment_text
from lorascope.report.embedded_font import with_font
from lorascope.report.intervals import draw_intervals
from lorascope.report.page import PageParts, page_parts
from lorascope.report.provenance import environment_details, measurement_text, study_details
from lorascope.report.sections import report_sections
from lorascope.report.templating import language_ending, make_environment
from lorascope.spec.load import with_changes
from lorascope.store.folder import StudyFolder
from lorascope.text import write_up
from lorascope.text.caveats import GRAVE, first_caveats
from lorascope.text.language import current_language, language, tr
from lorascope.text.next_steps import Step, export_command, next_steps
from lorascope.text.say import say
from lorascope.text.summary_json import summary_json
from lorascope.text.tables.advice import headline, needs, of_set, status_word
from lorascope.text.tables.overview import csv_rows, overview_table, title_of_study
from lorascope.text.tables.trials import trial_table


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A report that was written: its files, and the summary they show."""

    summary: StudySummary
    summary_json: Path
    report_md: Path
    report_html: Path
    charts: tuple[Path, ...]
    """Each chart as PNG; an SVG has the same name."""
    assignment: Path | None = None
    """The answer sheet of the reference study, where it was asked for."""


Renderer = Callable[[Mapping[str, Spec]], Mapping[str, RenderedChart]]


def write_report(
    folder: Path,
    *,
    lang: str = "en",
    tolerance: float | None = None,
    renderer: Renderer = render_charts,
    assignment: bool = False,
) -> Report:
    """Summarise the study in ``folder`` and write its report there.

    A language other than English has its own files, such as report.ko.html. summary.json is English in any case.

    Args:
        folder: the study.
        lang: of report and charts.
        tolerance: in place of the study's, in nats per token.
        renderer: renders the charts.
        assignment: True to write the answer sheet of the reference study as well.

    Raises:
        InputError: the folder is not a study, the tolerance is not above 0, there is no such language, or no font to
            draw it with.
    """
    with language(lang):
        data = load_study(folder)
        if tolerance is not None:
            data = replace(data, spec=with_changes(data.spec, {"tolerance": tolerance}))
        return write_files(folder, data, summarize_data(data), renderer, assignment=assignment)


def write_files(
    folder: Path,
    data: StudyData,
    summary: StudySummary,
    renderer: Renderer = render_charts,
    *,
    assignment: bool = False,
) -> Report:
    """Write a summary and its report in the language in use. Raises InputError where there is no font to draw it."""
    check_fonts()
    charts = make_charts(data, summary)
    rendered = renderer({name: chart.spec for name, chart in charts.items()})
    ending, study = language_ending(), StudyFolder(folder)
    report = Report(
        summary=summary,
        summary_json=study.summary,
        report_md=study.report("md", ending),
        report_html=study.report("html", ending),
        charts=tuple(study.charts / f"{name}{ending}.png" for name in charts),
        assignment=study.assignment(ending) if assignment else None,
    )
    if charts:
        study.charts.mkdir(exist_ok=True)
        pictures = dict(zip(report.charts, rendered.values(), strict=True))
        for path, chart in pictures.items():
            write_whole(path, chart.png, derived=True)
            write_whole(path.with_suffix(".svg"), chart.svg, derived=True)
        write_whole(study.charts_archive(ending), _archive(pictures), derived=True)
    write_whole(study.runs, _csv(summary), derived=True)
    answers = compare_answers(data)
    if answers:
        write_whole(study.samples, answers_jsonl(answers), derived=True)
    shown = data.shown_rows
    markdown = render("report.md.j2", summary, charts, shown, folder=folder, answers=answers)
    write_whole(report.report_md, markdown, derived=True)
    page = page_parts(summary, charts, rendered, data.ranks)
    html = render("report.html.j2", summary, charts, shown, page, folder=folder, answers=answers)
    write_whole(report.report_html, with_font(html), derived=True)
    if report.assignment is not None:
        write_whole(report.assignment, assignment_text(summary, charts), derived=True)
    write_whole(report.summary_json, summary_json(summary), derived=True)
    return report


def _archive(pictures: Mapping[Path, RenderedChart]) -> bytes:
    """Put the charts into one file, the same bytes for the same charts."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, chart in pictures.items():
            archive.writestr(zipfile.ZipInfo(path.name), chart.png)
            archive.writestr(zipfile.ZipInfo(path.with_suffix(".svg").name), chart.svg, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _csv(summary: StudySummary) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(csv_rows(summary))
    return buffer.getvalue()


def render(
    template: str,
    summary: StudySummary,
    charts: Mapping[str, Chart],
    shown: tuple[ShownRow, ...] = (),
    page: PageParts | None = None,
    *,
    folder: Path = Path(),
    answers: Sequence[ComparedAnswers] = (),
) -> str:
    """Fill one template; without ``page``, figures are left out. Commands and links name the study's ``folder``."""
    colors = rank_colors([part.rank for part in summary.ranks])
    environment = make_environment()
    return environment.get_template(template).render(
        ending=language_ending(),
        summary=summary,
        study_title=title_of_study(summary),
        headline=headline(summary),
        status=status_word(summary.answer),
        answer=of_set(summary, say(summary.answer.text)),
        needs=needs(summary),
        caveats=first_caveats(summary),
        grave=[say(caution.text) for caution in summary.cautions if caution.kind in GRAVE],
        next_steps=_steps(summary, folder),
        language=current_language(),
        page=page,
        colors=colors,
        overview=overview_table(summary),
        drawn=draw_intervals(summary, colors),
        runs=trial_table(summary),
        adapters=_adapters(summary, StudyFolder(folder)),
        sections=report_sections(summary, charts.values(), shown, folder, answers),
        has_answers=bool(answers),
        paragraphs=write_up.paragraphs(summary),
        study_details=study_details(summary),
        environment_details=environment_details(summary),
        measurement=measurement_text(summary),
    )


def _steps(summary: StudySummary, folder: Path) -> list[Step]:
    """Return the next steps, and how to use the adapter where no step says so."""
    steps, rank = [*next_steps(summary, folder)], summary.recommendation.use.rank
    if summary.study.complete and rank is not None and summary.answer.truncate_to is None:
        steps.append(Step(title=tr("To use it"), command=export_command(summary, folder, rank)))
    return steps


def _adapters(summary: StudySummary, study: StudyFolder) -> dict[str, str]:
    """Return the relative address of each adapter's folder, by the trial's id."""
    folders = {trial.trial_id: study.trial_adapter(trial.trial_id) for trial in summary.trials}
    return {name: f"{study.adapters.name}/{name}/" for name, folder in folders.items() if folder.is_dir()}

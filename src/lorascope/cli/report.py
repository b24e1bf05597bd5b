"""``lorascope report``: rebuild the report from a study's records."""

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from lorascope.cli.gc_pause import pause_gc
from lorascope.cli.program_output import program_output
from lorascope.errors import InputError
from lorascope.text.language import Language

if TYPE_CHECKING:
    from lorascope.analysis import StudySummary


def report(
    folder: Path,
    /,
    *,
    lang: Language = "en",
    format: Literal["html", "md", "json", "assignment"] = "html",  # noqa: A002  # the name of the flag
    tolerance: float | None = None,
    notes: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    open: Annotated[bool, Parameter(negative="", show_default=False)] = False,  # noqa: A002  # the name of the flag
) -> int:
    """Write the report, its Markdown and summary.json from a study's records, and print the path.

    Parameters
    ----------
    folder
        Folder of the study.
    lang
        Language of the report and its charts. Languages other than English get their own files: report.ko.html.
    format
        Which file to print the path of. assignment, the answers to a course, is written only when asked for.
    tolerance
        Judge the ranks anew with this tolerance in nats per token, and print the answer; trains nothing.
    notes
        Print verdict, needs, caveats and what was done to the rows in sentences.
    json
        Write summary.json to standard output in place of the path.
    open
        Show the file in the browser, or in the program of its kind.
    """
    if json and notes:
        raise InputError("--notes prints sentences, and --json none", remedy="give one of them")
    from lorascope.charts.render_pool import RenderPool

    with program_output(alone=json) as out:
        with RenderPool(lang) as pool:  # the processes start while modules are imported and the study is read
            with pause_gc():
                from lorascope.report import write_report

            sheet = format == "assignment"
            written = write_report(folder, lang=lang, tolerance=tolerance, renderer=pool.render, assignment=sheet)
        if json:
            print(written.summary_json.read_text(encoding="utf-8"), end="", file=out)
        elif tolerance is not None or notes:
            _show(written.summary, folder, answer=tolerance is not None, notes=notes)
        files = {"html": written.report_html, "md": written.report_md, "json": written.summary_json}
        path = files.get(format) or written.assignment
        assert path is not None
        if not json:
            print(path, file=out)
        if open:
            webbrowser.open(path.resolve().as_uri())
    return 0


def _show(summary: "StudySummary", folder: Path, *, answer: bool, notes: bool) -> None:
    from rich.console import Console

    from lorascope.cli.notes import show_notes
    from lorascope.cli.result import show_result

    console = Console()
    if answer:
        show_result(console, summary, folder)
    if notes:
        show_notes(console, summary)

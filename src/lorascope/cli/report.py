"""``lorascope report``: build the report again from a study's store."""

import webbrowser
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from lorascope.cli.gc_pause import importing
from lorascope.text.language import Language


def report(
    folder: Path,
    /,
    *,
    lang: Language = "en",
    format: Literal["html", "md", "json"] = "html",  # noqa: A002  # the name of the flag
    open: Annotated[bool, Parameter(negative="", show_default=False)] = False,  # noqa: A002  # the name of the flag
) -> int:
    """Write the report, its Markdown and summary.json from a study's records, and print the path.

    Parameters
    ----------
    folder
        Folder of the study.
    lang
        Language of the report and its charts. Another than English has files of its own: report.ko.html.
    format
        Which of the files to name.
    open
        Show the file in the browser, or in the program of its kind.
    """
    from lorascope.charts.render_pool import Drawers

    with Drawers(lang) as drawers:  # they get ready while the rest is imported and the study read
        with importing():
            from lorascope.report import write_report

        written = write_report(folder, lang=lang, draw_charts=drawers.draw)
    path = {"html": written.report_html, "md": written.report_md, "json": written.summary_json}[format]
    print(path)  # noqa: T201
    if open:
        webbrowser.open(path.resolve().as_uri())
    return 0

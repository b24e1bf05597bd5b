"""Where a run writes: a terminal or a log for people, summary.json or events for programs."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.console import Console

from lorascope.cli.program_output import program_output
from lorascope.spec.schema import StudySpec

if TYPE_CHECKING:
    from lorascope.report import Report
    from lorascope.run.trackers import Tracker


@dataclass(kw_only=True, slots=True)
class RunOutput:
    """Shows a run from its start to its answer."""

    console: Console
    """Where an interrupted study shows what it has."""
    view: Callable[[], AbstractContextManager["Tracker"]]
    """Makes what follows the run."""
    answer: Callable[["Report", Path], None]
    """Shows the answer of a study, in its folder, whose report is written."""
    study: Callable[[StudySpec, Path], None]
    """Shows which study begins, and its folder."""
    exit_code: int = 0
    """Of the program, once it is known."""


@contextmanager
def make_output(*, as_json: bool, as_events: bool) -> Iterator[RunOutput]:
    """Open what the flags ask for; what libraries print then does not get into the output of programs."""
    if not as_json and not as_events:
        yield _text_output(Console())
        return
    with program_output(alone=True) as stdout, (_json_output if as_json else _event_output)(stdout) as output:
        yield output


@contextmanager
def _json_output(stdout: TextIO) -> Iterator[RunOutput]:
    def answer(report: "Report", _: Path) -> None:
        print(report.summary_json.read_text(encoding="utf-8"), end="", file=stdout)

    console = Console(stderr=True)
    yield RunOutput(console=console, view=lambda: _lines(sys.stderr), study=_silent, answer=answer)


@contextmanager
def _event_output(stdout: TextIO) -> Iterator[RunOutput]:
    from lorascope.cli.event_stream import EventStream

    with EventStream(stdout) as events:
        output = RunOutput(
            console=Console(stderr=True), view=lambda: nullcontext(events), answer=events.answer, study=events.study
        )
        yield output
        events.exit_code = output.exit_code


def _text_output(console: Console) -> RunOutput:
    def view() -> AbstractContextManager["Tracker"]:
        from lorascope.cli.live import LiveView

        return LiveView(console) if console.is_terminal else _lines(sys.stdout)

    def answer(report: "Report", folder: Path) -> None:
        from lorascope.cli.result import show_result

        console.print()
        show_result(console, report.summary, folder)

    return RunOutput(console=console, view=view, study=_silent, answer=answer)


def _lines(stream: TextIO) -> AbstractContextManager["Tracker"]:
    from lorascope.cli.plain import PlainView

    return PlainView(stream)


def _silent(spec: StudySpec, folder: Path) -> None:
    del spec, folder  # the first round describes the study

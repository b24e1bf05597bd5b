"""``lorascope run``: run a study, or continue one."""

import re
import shlex
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console

from lorascope.cli.flags import STUDY, given_fields, make_flags
from lorascope.cli.gc_pause import pause_gc
from lorascope.errors import InputError, Interrupted
from lorascope.records import AS_PLANNED
from lorascope.spec.fields.rows import FILE_SUFFIXES
from lorascope.spec.load import find_study, load_spec, preset_names
from lorascope.spec.schema import StudySpec

if TYPE_CHECKING:
    from lorascope.cli.run_output import RunOutput
    from lorascope.report import Report
    from lorascope.web.subprocess import ServedPage

    StudyFlags = object
else:
    StudyFlags = make_flags()

DEFAULT_PRESET = "demo"


def run(
    study: str | None = None,
    /,
    *,
    out: Annotated[Path | None, Parameter(group=STUDY)] = None,
    json: Annotated[bool, Parameter(negative="", show_default=False, group=STUDY)] = False,
    json_events: Annotated[bool, Parameter(negative="", show_default=False, group=STUDY)] = False,
    serve: Annotated[bool, Parameter(negative="", show_default=False, group=STUDY)] = False,
    flags: Annotated[StudyFlags | None, Parameter(name="*")] = None,
) -> int:
    """Fine-tune every rank on the same data over one frozen model, compare them, and keep each adapter.

    Parameters
    ----------
    study
        A study file (YAML), a preset, or the folder of a study, which is continued. Flags override it. Without it,
        --model and --dataset, or else the preset demo.
    out
        Folder of the study; the same study in it is continued. Default: studies/PRESET or studies/MODEL-DATASET.
    json
        Write summary.json to standard output and progress to standard error.
    json_events
        Write each event of the run to standard output as it happens, one JSON object a line.
    serve
        Show the study in a browser while it runs; the address is printed.
    """
    began = time.monotonic()  # a time budget counts the imports, too
    if json and json_events:
        raise InputError("--json and --json-events both want standard output", remedy="give one of them")
    from lorascope.cli.run_output import make_output

    with make_output(as_json=json, as_events=json_events) as output:
        study, spec = read_study(study, flags)
        folder = out if out is not None else default_folder(study, spec)
        output.exit_code = _execute(spec, folder, output, serve=serve, began=began)
        return output.exit_code


def read_study(study: str | None, flags: object | None) -> tuple[str | None, StudySpec]:
    """Return the name of the study, by default that of the demo preset, and its spec with the flags applied."""
    given, peft_config = given_fields(flags), getattr(flags, "peft_config", None)
    study, spec = read_fields(study, given, peft_config)
    if peft_config is not None and peft_config.is_dir():
        text = f"note: the study takes the settings of the adapter in {peft_config}, and none of its weights"
        print(text, file=sys.stderr)  # noqa: T201
    return study, spec


def read_fields(
    study: str | None, given: Mapping[str, object], peft_config: Path | None = None
) -> tuple[str | None, StudySpec]:
    """Return the name of the study and its spec with the fields given; see ``load_spec``."""
    if study is None and peft_config is None and not {"model", "dataset"} & given.keys():
        study = DEFAULT_PRESET
    return study, load_spec(find_study(study) if study is not None else None, given, peft_config)


def _execute(spec: StudySpec, folder: Path, output: "RunOutput", *, serve: bool, began: float) -> int:
    output.study(spec, folder)
    with ExitStack() as stack:
        page = stack.enter_context(_served(folder)) if serve else None
        try:
            report = _train_and_report(output, spec, folder, page, began)
        except (KeyboardInterrupt, Interrupted):
            return _stopped(output.console, folder)
        output.answer(report, folder)
        if page is not None:
            page.end_run()
            _keep_open(page.address, folder)
    planned = all(trial.outcome in AS_PLANNED for trial in report.summary.trials)
    return 0 if planned and not any(one.kind == "adapter_differs" for one in report.summary.cautions) else 1


def _served(folder: Path) -> AbstractContextManager["ServedPage"]:
    from lorascope.web.subprocess import serve_in_subprocess

    return serve_in_subprocess(folder)


def _keep_open(address: str, folder: Path) -> None:
    """Serve the page on until the reader is done, or say how to see it again where no one can answer."""
    if sys.stdin.isatty():
        print(f"The page stays open at {address}. Press Enter to close it.", file=sys.stderr, flush=True)  # noqa: T201
        with suppress(KeyboardInterrupt):
            sys.stdin.readline()
    else:
        print(f"To see the page again: {shlex.join(['lorascope', 'serve', str(folder)])}", file=sys.stderr)  # noqa: T201


def _train_and_report(
    output: "RunOutput", spec: StudySpec, folder: Path, page: "ServedPage | None", began: float
) -> "Report":
    from lorascope.run.trackers.followers import follow_run

    with output.view() as view, follow_run(spec.report_to, folder, view.note, view.phase) as followers:
        view.phase("starting")
        if page is not None:
            view.note(f"watch it at {page.address}")
        with pause_gc():
            from lorascope.run.study import run_study

        run_study(spec, folder, trackers=[view, followers.tracker], command=_command(), began=began)
        view.phase("writing the report")
        from lorascope.report import write_report

        report = write_report(folder)
        followers.result()
        return report


def _stopped(console: Console, folder: Path) -> int:
    """Show what an interrupted study has so far, and the command that continues it."""
    from lorascope.store.folder import StudyFolder

    summary = None
    if StudyFolder(folder).store.is_file():
        from lorascope.analysis import summarize

        summary = summarize(folder)
    if summary is None or not summary.trials:
        print(f"lorascope: stopped before training; to begin again: {_command()}", file=sys.stderr)  # noqa: T201
        return Interrupted.exit_code
    from lorascope.cli.result import show_result

    console.print()
    show_result(console, summary, folder)
    return Interrupted.exit_code


def _command() -> str:
    return shlex.join(["lorascope", *sys.argv[1:]])


def default_folder(study: str | None, spec: StudySpec) -> Path:
    """Return the folder that was given as the study, or one named after preset, model and data set."""
    if study in preset_names():
        return Path("studies") / str(study)
    if study is not None and Path(study).is_dir():
        return Path(study)
    return Path("studies") / f"{_slug(spec.model)}-{'-'.join(map(_slug, spec.dataset_names))}"


def _slug(source: str) -> str:
    """Return the last part of a hub id, path or built-in name as a folder name."""
    name = Path(source.removeprefix("builtin:")).stem if Path(source).suffix in _SUFFIXES else Path(source).name
    return re.sub(r"[^\w.]+", "-", name.removeprefix("builtin:")).strip("-.").lower() or "study"


_SUFFIXES = {*FILE_SUFFIXES, ".gguf"}

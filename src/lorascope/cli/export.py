"""``lorascope export``: copy the adapter of one rank, or merge it into the model."""

from pathlib import Path
from typing import Annotated, TextIO

from cyclopts import Parameter

from lorascope.cli.program_output import program_output
from lorascope.errors import InputError


def export(
    folder: Path,
    /,
    *,
    rank: int | None = None,
    to: Path | None = None,
    target_modules: str | None = None,
    truncate: int | None = None,
    merge: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    to_tracker: str | None = None,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Copy the adapter of one rank in PEFT's format, or the model with the adapter merged in.

    With --to-tracker, bring the study's runs to an experiment tracker instead.

    Parameters
    ----------
    folder
        Folder of the study.
    rank
        Which rank to export, at its best learning rate.
    to
        Folder to write; must not exist yet.
    target_modules
        Which set of target modules, where the study has several: all-linear, or its names.
    truncate
        Truncate the adapter to this smaller rank first, by singular values.
    merge
        Write the whole model with the adapter merged into its weights.
    to_tracker
        Experiment trackers: wandb, mlflow, tensorboard, trackio. What one has already is not sent again.
    json
        Write one JSON object in place of the path.
    """
    if to_tracker is not None:
        return _export_to_trackers(folder, to_tracker.split(","), adapter=(rank, to), as_json=json)
    if rank is None or to is None:
        raise InputError("--rank and --to say what to export", remedy="give both, or --to-tracker NAME")
    from lorascope.run.export import export_adapter

    with program_output(alone=json) as out:
        export_adapter(folder, rank, to, target_modules=target_modules, truncate=truncate, merge=merge)
        if json:
            _print(out, to=str(to), rank=rank, truncated_to=truncate, merged=merge)
        else:
            print(to, file=out)
    return 0


def _print(out: TextIO, **facts: object) -> None:
    from lorascope.cli.outputs import ExportOutput

    print(ExportOutput.model_validate(facts).model_dump_json(indent=2), file=out)


def _export_to_trackers(
    folder: Path, names: list[str], *, adapter: tuple[int | None, Path | None], as_json: bool
) -> int:
    if adapter != (None, None):
        raise InputError("--to-tracker exports runs, not an adapter", remedy="leave out --rank and --to")
    from lorascope.report import write_report
    from lorascope.run.trackers.export import export_runs

    places = {}
    with program_output(alone=as_json) as out:
        write_report(folder)
        for name in names:
            with program_output(alone=True):  # what a library says is no result
                places[name] = export_runs(folder, name)
            if not as_json:
                print(f"{name}: {places[name]}", file=out)
        if as_json:
            _print(out, trackers=places)
    return 0

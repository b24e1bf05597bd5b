"""``lorascope export``: copy the adapter of one rank, or merge it into the model."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def export(
    folder: Path,
    /,
    *,
    rank: int,
    to: Path,
    target_modules: str | None = None,
    truncate: int | None = None,
    merge: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Copy the adapter of one rank in PEFT's format, or the model with the adapter merged in.

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
    """
    from lorascope.run.export import export_adapter

    export_adapter(folder, rank, to, target_modules=target_modules, truncate=truncate, merge=merge)
    print(to)  # noqa: T201
    return 0

"""``lorascope push``: upload the adapter of one rank to the hub."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lorascope.cli.program_output import program_output


def push(
    folder: Path,
    repo: str,
    /,
    *,
    rank: int,
    private: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    target_modules: str | None = None,
    base_model: str | None = None,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Upload the adapter of one rank to the Hugging Face hub, with a model card and the study's report.

    Parameters
    ----------
    folder
        Folder of the study.
    repo
        USER/NAME; made if there is none. One that is there gets a commit.
    rank
        Which rank to push, at its best learning rate.
    private
        Make the repository private, if it is made.
    target_modules
        Which set of target modules, where the study has several: all-linear, or its names.
    base_model
        Hub id of the base model, where the study's model is a folder or a file.
    json
        Write one JSON object in place of the address.
    """
    from lorascope.report import write_report
    from lorascope.run.push import push_adapter
    from lorascope.store.folder import StudyFolder

    with program_output(alone=json) as out:
        study = StudyFolder(folder)
        report = study.report("html")
        if study.store.is_file() and (not report.is_file() or report.stat().st_mtime < study.store.stat().st_mtime):
            write_report(folder)
        page = push_adapter(folder, rank, repo, private=private, target_modules=target_modules, base_model=base_model)
        if json:
            from lorascope.cli.outputs import PushOutput

            print(PushOutput(url=page, repo=repo, rank=rank).model_dump_json(indent=2), file=out)
        else:
            print(page, file=out)
    return 0

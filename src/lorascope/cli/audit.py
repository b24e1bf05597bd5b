"""``lorascope audit``: how much of an adapter's rank is used."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

from cyclopts import Parameter
from rich.console import Console

from lorascope.cli.flags import STUDY, given_fields, make_audit_flags
from lorascope.cli.gc_pause import pause_gc
from lorascope.cli.program_output import program_output
from lorascope.errors import InputError

if TYPE_CHECKING:
    from lorascope.analysis.adapters.audit_schema import AdapterAudit

    AuditFlags = object
else:
    AuditFlags = make_audit_flags()


def audit(
    adapter: Path,
    /,
    *,
    truncate: Annotated[int | None, Parameter(group=STUDY)] = None,
    to: Annotated[Path | None, Parameter(group=STUDY)] = None,
    json: Annotated[bool, Parameter(negative="", show_default=False, group=STUDY)] = False,
    flags: Annotated[AuditFlags | None, Parameter(name="*")] = None,
) -> int:
    """Say how much of a LoRA adapter's rank is used, on held-out rows; or write it truncated.

    Parameters
    ----------
    adapter
        Folder of an adapter in PEFT's format. That of a study's adapter needs no --dataset: its held-out rows are used.
    truncate
        Write the adapter, truncated to this smaller rank by singular values, to --to; no audit unless --dataset.
    to
        Folder to write; must not exist yet.
    json
        Write one JSON object in place of the screen.
    """
    if (truncate is None) != (to is None):
        raise InputError("--truncate and --to come together", remedy="give both, or neither")
    given = given_fields(flags)
    with pause_gc():
        from lorascope.run.audit import audit_adapter, check_truncation, write_truncated

    with program_output(alone=json) as out:
        stored = None if truncate is None or to is None else check_truncation(adapter, truncate, to, given)
        found = None
        if stored is None or "dataset" in given:
            with Console(stderr=True).status("starting") as status:
                found = audit_adapter(adapter, given, status.update)
        if stored is not None and truncate is not None and to is not None:
            write_truncated(stored, truncate, to)
        if json:
            _print(out, found, to, truncate)
        else:
            _show(found, to)
        return 0


def _print(out: TextIO, found: "AdapterAudit | None", to: Path | None, truncate: int | None) -> None:
    from lorascope.cli.outputs import AuditOutput
    from lorascope.text.summary_json import section_json

    written = AuditOutput(audit=found, to=None if to is None else str(to), truncated_to=truncate)
    print(section_json(written), end="", file=out)


def _show(found: "AdapterAudit | None", to: Path | None) -> None:
    if found is not None:
        from lorascope.cli.audit_screen import show_audit

        show_audit(Console(), found)
    if to is not None:
        print(to)  # noqa: T201

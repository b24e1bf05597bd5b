"""What commands write with ``--json``: the shape of each object; docs/json.md is made from it."""

from lorascope.analysis.adapters.audit_schema import AdapterAudit
from lorascope.analysis.section import Section


class RowPart(Section):
    """A training row."""

    row: int
    """Counted from 1."""
    tokens: int
    """Its tokens."""
    targets: int
    """Tokens that the loss is taken on."""
    pieces: tuple[str, ...]
    """Its whole text: what is no target and targets, by turns; the first is no target."""


class RowsOutput(Section):
    """``lorascope rows --json``: rows as a study would train on them."""

    format: str
    """The form that was recognised."""
    train_examples: int
    """Rows to train on."""
    eval_examples: int
    """Rows held out."""
    median_tokens: float
    """Of a row."""
    longest_tokens: int
    """Of the longest row."""
    cut_share: float
    """Share of the rows that are longer than ``max_length``."""
    max_length: int
    """Tokens kept of a row."""
    notes: tuple[str, ...]
    """What was done to the rows, a sentence each."""
    shown: tuple[RowPart, ...]
    """The first training rows, as many as ``--show`` says."""


class ServeOutput(Section):
    """``lorascope serve --json``: written in one line before the page is served."""

    url: str
    """Address of the page, with its token where one is needed."""


class ExportOutput(Section):
    """``lorascope export --json``."""

    to: str | None = None
    """Folder of the adapter or the merged model; null with ``--to-tracker``."""
    rank: int | None = None
    """Its rank in the study; null with ``--to-tracker``."""
    truncated_to: int | None = None
    """Rank after truncation; null where it was not truncated."""
    merged: bool = False
    """True: the whole model was written."""
    trackers: dict[str, str] | None = None
    """Where the runs are, by the name of the tracker; null without ``--to-tracker``."""


class AuditOutput(Section):
    """``lorascope audit --json``."""

    audit: AdapterAudit | None
    """What was measured of the adapter; null where it was only truncated."""
    to: str | None
    """Folder of the truncated adapter; null without ``--truncate``."""
    truncated_to: int | None
    """Its rank; null without ``--truncate``."""


class PushOutput(Section):
    """``lorascope push --json``."""

    url: str
    """Page of the repository."""
    repo: str
    """USER/NAME."""
    rank: int
    """The adapter's rank in the study."""


class SkillOutput(Section):
    """``lorascope skill --json``."""

    path: str
    """The skill's file: the installed copy, or the one in the package."""


class CheckPart(Section):
    """One thing that the doctor looked at."""

    name: str
    """What it is."""
    found: str
    """What there is."""
    remedy: str
    """What to do; empty where nothing is wrong."""


class DoctorOutput(Section):
    """``lorascope doctor --json``: this machine."""

    lorascope: str
    """Version of the program."""
    python: str
    """Version of Python."""
    packages: dict[str, str]
    """Versions of packages that can change results."""
    os: str
    """Operating system."""
    cpu: str
    """Name of the processor."""
    cpu_cores: int
    """Cores that may be used."""
    cpu_quota: float | None
    """Cores that a container allows; null without a limit."""
    threads: int
    """Threads that Torch uses."""
    bf16_instructions: tuple[str, ...]
    """Instruction sets that multiply bfloat16 matrices."""
    devices: tuple[str, ...]
    """Devices, ``cpu`` first."""
    memory_bytes: int
    """Memory."""
    memory_available_bytes: int
    """Free memory."""
    memory_limit_bytes: int | None
    """Memory that a container allows; null without a limit."""
    disk_free_bytes: int
    """Free space in this folder."""
    compiler: str | None
    """C++ compiler; null without one, when steps on a CPU take several times as long."""
    demo_model: str | None
    """File of the built-in model; null where it is not installed."""
    hub_offline: tuple[str, ...]
    """Environment variables that switch the hub off."""
    checks: tuple[CheckPart, ...]
    """What is in order, and what to mend."""

"""Settings of a study in summary.json: what all trials share, the tokens that its search took, and where it ran."""

from lorascope.analysis.section import Section


class BudgetSection(Section):
    """Tokens that went through the model, held-out ones included, compared with the whole grid."""

    tokens: int
    """Tokens of all training steps and evaluations."""
    exhaustive_tokens: int
    """The same, had every trial of every learning rate that was tried, at every seed, gone to its end."""
    share: float
    """The first divided by the second."""
    stopped_trials: int
    """Trials that early exit stopped."""


class SettingsSection(Section):
    """Settings that all trials have in common, and what follows from them."""

    split: str
    """Rows that were used, in the split syntax of ``datasets``; of several data sets one for each."""
    eval_split: str | None
    """Split of the held-out rows; null where they are rows of ``split``."""
    max_length: int
    """Tokens that a row is cut to."""
    target_modules: tuple[str, ...]
    """Layers with an adapter by the last part of their names; empty before the model was read."""
    lora_dropout: float
    """Dropout probability of the adapters' inputs."""
    rows_per_step: int
    """Training rows of an optimizer step."""
    epochs: float | None
    """Passes over the training rows that a whole trial makes; null before the rows were counted."""
    base_bytes: int | None
    """Bytes of the base's weights; null before the model was read."""


class EnvironmentSection(Section):
    """Machine, versions and command of the study's last start."""

    started: str
    """ISO 8601 with time zone."""
    lorascope_version: str
    """Version that wrote the records."""
    commit: str | None
    """Its commit, where it ran from a working tree."""
    python: str
    """Version of Python."""
    packages: dict[str, str]
    """Versions of the packages the numbers depend on."""
    os: str
    """Operating system."""
    cpu: str
    """Processor."""
    cpu_cores: int
    """Its cores."""
    memory_bytes: int
    """Memory of the machine."""
    device_name: str
    """The device that trained."""
    threads: int
    """Threads of torch."""
    command: str
    """Command that started it."""
    starts: int
    """How often the study was started or continued."""

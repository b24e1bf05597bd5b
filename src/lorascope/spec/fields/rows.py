"""Fields of the rows."""

from datetime import date
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from lorascope.spec.fields.types import (
    Count,
    Fields,
    NonEmpty,
    Positive,
    Seed,
    contradiction,
    count_values,
)

DatasetFormat = Literal["auto", "alpaca", "prompt_completion", "messages", "sharegpt", "text", "template"]
OneOrEach = NonEmpty | Annotated[tuple[NonEmpty, ...], Field(min_length=1)]
"""One value for all data sets, or one for each."""
FILE_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
"""Suffixes of data files."""
COMPRESSED_SUFFIXES = (".gz", ".bz2", ".zst")
"""Suffixes behind that of a data file of text."""


def data_suffix(path: str | Path) -> str:
    """Return a data file's suffix in lower case, without that of its compression."""
    path = Path(path)
    return Path(path.stem if path.suffix.lower() in COMPRESSED_SUFFIXES else path).suffix.lower()


class RowFields(Fields):
    """Where the rows come from, how they are read, and which are held out."""

    model: NonEmpty = "builtin:smollm2-135m"
    """Base model: a hub id, a folder, a GGUF file, or ``builtin:smollm2-135m``."""

    dataset: NonEmpty | Annotated[tuple[NonEmpty, ...], Field(min_length=1)] = "builtin:python-stdlib"
    """Rows: a hub id, a file (.json, .jsonl, .csv, .tsv, .parquet; .gz, .bz2 and .zst of text), a folder of files or
    saved by ``datasets``, or ``builtin:python-stdlib``. Several are used together, each in its own format; repeat the
    flag, or give a list."""

    mix: tuple[Positive, ...] | None = None
    """Shares of several data sets in their order, such as ``0.7,0.3``. As many rows as keep them are chosen by
    ``split_seed``. Default: all rows of all."""

    max_rows: Count | None = None
    """Use at most this many rows, chosen by ``split_seed``. Default: all."""

    streaming: bool = False
    """Read the first ``max_rows`` rows only, instead of downloading all; several data sets give equal shares, or those
    of ``mix``."""

    dataset_config: OneOrEach | None = None
    """Configuration of a hub data set that has several, such as ``main``. Of several data sets, one for all or one for
    each in their order: ``default`` for those without."""

    split: OneOrEach = "train"
    """Rows to use, in the split syntax of ``datasets``: ``train``, ``train[:50%]``, ``train[100:200]``. Of several data
    sets, one for all or one for each in their order."""

    eval_split: OneOrEach | None = None
    """Split of held-out rows, of several data sets as in ``split``. Default: rows of ``split``, chosen by
    ``split_seed``."""

    eval_examples: Annotated[int, Field(ge=2, strict=True)] | None = None
    """Number of held-out rows, at least two. Default: a tenth of the rows, at most 256."""

    dataset_format: DatasetFormat = "auto"
    """Format of the rows. ``auto`` detects it by column names."""

    columns: dict[str, str] | None = None
    """Columns under other names, as name=column: ``instruction=question,output=answer`` reads the column ``question``
    as ``instruction``."""

    prompt_template: str | None = None
    """Prompt template over the columns, such as ``### Question: {instruction}\\n ### Answer: ``; implies the format
    ``template``."""

    completion_template: str | None = None
    """Completion template over the columns, such as ``{output}``; implies the format ``template``."""

    template_date: date | None = None
    """Date in rows whose chat template prints the day's, such as ``2026-11-30``. Default: the day on which the study
    begins, also where it is continued later."""

    completion_only_loss: bool | None = None
    """Take the loss on the completion only. Default: true if the format has a completion."""

    max_length: Annotated[int, Field(ge=2, strict=True)] = 1024
    """Rows are truncated to this many tokens."""

    dedupe: Literal["exact", "minhash"] = "exact"
    """Which rows count as copies of one prompt and stay on one side of the split. ``exact``: those that differ in case,
    white space or Unicode form alone; ``minhash``: also those of similar text (needs ``lorascope[minhash]``)."""

    split_seed: Seed = 0
    """Seed of the held-out rows. Training rows are shuffled by each trial's own seed."""

    @property
    def dataset_names(self) -> tuple[str, ...]:
        """The data sets, in their order."""
        return (self.dataset,) if isinstance(self.dataset, str) else self.dataset

    def for_each(self, given: str | tuple[str, ...]) -> tuple[str, ...]:
        """Return the value of ``split`` or a field like it for each data set."""
        return (given,) * len(self.dataset_names) if isinstance(given, str) else given

    @model_validator(mode="after")
    def _lists_fit_data_sets(self) -> Self:
        for name in ("dataset_config", "split", "eval_split"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != len(self.dataset_names):
                problem = f"{name} has {count_values(len(value))}, and the number of data sets is"
                raise contradiction(
                    f"{problem} {len(self.dataset_names)}", "give one for all data sets, or one for each in their order"
                )
        return self

    @model_validator(mode="after")
    def _mix_fits_data_sets(self) -> Self:
        given = len(self.mix or ())
        if given and (given == 1 or given != len(self.dataset_names)):
            problem = f"mix has {count_values(given)}, and the number of data sets is {len(self.dataset_names)}"
            raise contradiction(problem, "give several data sets, and one share for each")
        if self.streaming and self.max_rows is None:
            raise contradiction("streaming needs max_rows", "say how many rows to read, such as --max-rows 100000")
        return self

    @model_validator(mode="after")
    def _templates_come_in_pairs(self) -> Self:
        if self.completion_template is not None and self.prompt_template is None:
            raise PydanticCustomError("template", "completion_template needs a prompt_template", {})
        if self.dataset_format == "template" and self.prompt_template is None:
            raise PydanticCustomError("template", "dataset_format 'template' needs a prompt_template", {})
        return self

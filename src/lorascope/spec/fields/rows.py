"""Fields of the rows."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from lorascope.spec.fields.types import (
    Fields,
    NonEmpty,
    Seed,
)

DatasetFormat = Literal["auto", "alpaca", "prompt_completion", "messages", "sharegpt", "text", "template"]
FILE_SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
"""Suffixes of data files."""


class RowFields(Fields):
    """Where the rows come from, how they are read, and which are held out."""

    model: NonEmpty = "builtin:smollm2-135m"
    """Base model: a hub id, a folder, a GGUF file, or ``builtin:smollm2-135m``."""

    dataset: NonEmpty = "builtin:python-stdlib"
    """Rows: a hub id, a file (.json, .jsonl, .csv, .parquet), a folder of files or saved by ``datasets``, or
    ``builtin:python-stdlib``."""

    split: NonEmpty = "train"
    """Rows to use, in the split syntax of ``datasets``: ``train``, ``train[:50%]``, ``train[100:200]``."""

    eval_split: str | None = None
    """Split of held-out rows. Default: rows of ``split``, chosen by ``split_seed``."""

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

    completion_only_loss: bool | None = None
    """Take the loss on the completion only. Default: true if the format has a completion."""

    max_length: Annotated[int, Field(ge=2, strict=True)] = 1024
    """Rows are truncated to this many tokens."""

    split_seed: Seed = 0
    """Seed of the held-out rows. Training rows are shuffled by each trial's own seed."""

    @model_validator(mode="after")
    def _templates_come_in_pairs(self) -> Self:
        if self.completion_template is not None and self.prompt_template is None:
            raise PydanticCustomError("template", "completion_template needs a prompt_template", {})
        if self.dataset_format == "template" and self.prompt_template is None:
            raise PydanticCustomError("template", "dataset_format 'template' needs a prompt_template", {})
        return self

"""Data sources: a hub id, a local file, a folder of files or saved by ``datasets``, or the built-in data set."""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pyarrow as pa
from datasets import DatasetDict, ReadInstruction
from datasets.exceptions import DatasetNotFoundError, DatasetsError
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # the hub's own HTTP client, by any version
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from lorascope.data.sources.builtin_rows import read_stdlib
from lorascope.data.sources.files import READERS, read_file
from lorascope.data.sources.rows import Rows, joined, rows_of_list
from lorascope.data.sources.tables import rows_of_dataset, without_nulls
from lorascope.errors import InputError
from lorascope.message import Message
from lorascope.spec.fields.rows import data_suffix

STDLIB = "builtin:python-stdlib"
DEFAULT_CONFIG = "default"
"""The configuration of a data set that names none."""
_CONFIGS = re.compile(r"(?:available configs|Available): \[(.*)\]")
"""Where ``datasets`` lists configurations."""
HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_SAVED = ("dataset_info.json", "state.json", "dataset_dict.json")
"""Files that ``save_to_disk`` writes beside the rows."""
FILE_REMEDY = "give rows as a file instead, such as --dataset rows.json (.jsonl, .csv, .parquet)"


def load_rows(dataset: str, split: str, config: str = DEFAULT_CONFIG) -> Rows:
    """Load a split (``train``, ``train[:50%]``, ``train[10:20]``) of a data set, in one of its configurations.

    Raises:
        InputError: the data set, its configuration or the split does not exist, or has no rows.
    """
    path = Path(dataset).expanduser()
    _check_config(dataset, path, config)
    with _quiet():
        if dataset.startswith("builtin:"):
            rows = _select(dataset, {"train": _builtin(dataset)}, split)
        elif path.is_dir():
            rows = _load_folder(path, dataset, split, config)
        elif path.exists():
            rows = _select(dataset, {"train": read_file(path)}, split)
        else:
            rows = _load_hub(dataset, split, config)
    if len(rows) == 0:
        raise InputError(f"split {split!r} of {dataset!r} has no rows", remedy="choose a split with rows in it")
    return rows


def stream_rows(dataset: str, split: str, n_rows: int, config: str = DEFAULT_CONFIG) -> Rows:
    """Load the first rows of a split, at most ``n_rows``; of the hub's data sets and folders of files no more are read.

    Raises:
        InputError: as for ``load_rows``, or the split names a part.
    """
    path = Path(dataset).expanduser()
    if dataset.startswith("builtin:") or path.is_file() or (path.is_dir() and not _has_data_files(path)):
        rows = load_rows(dataset, split, config)
        return rows.select(np.arange(min(n_rows, len(rows))))
    if not path.is_dir():
        _check_hub_id(dataset)
    if "[" in split or "+" in split:
        raise InputError(
            f"split {split!r} is a part, and streamed rows come from the start of a whole split",
            remedy="name a whole split and give max_rows, or leave streaming out",
        )
    with _quiet(), _explained(dataset, split, config):
        if not path.is_dir() and not _hub_answers(dataset):
            raise ConnectionError("no answer")
        stream = _load(dataset if not path.is_dir() else str(path), split, config, streaming=True)
        taken = [without_nulls(row, stream.features) for row in islice(stream, n_rows)]  # take reads on
    if not taken:
        raise InputError(f"split {split!r} of {dataset!r} has no rows", remedy="choose a split with rows in it")
    return rows_of_list(dataset, taken, notes=_note_left_out(path, config) if path.is_dir() else ())


def _builtin(dataset: str) -> Rows:
    if dataset != STDLIB:
        raise InputError(f"there is no built-in data set {dataset!r}", remedy=f"the built-in one is {STDLIB}")
    return rows_of_list(dataset, read_stdlib())


def _check_config(dataset: str, path: Path, config: str) -> None:
    named = dataset.startswith("builtin:") or path.is_file() or (path.is_dir() and not _has_data_files(path))
    if named and config != DEFAULT_CONFIG:
        raise InputError(
            f"dataset_config is {config!r}, and {dataset!r} has no configurations",
            remedy=f"leave it out; of several data sets give one for each, {DEFAULT_CONFIG!r} for those without",
        )


def _load(source: str, split: str, config: str, *, streaming: bool = False) -> Any:  # noqa: ANN401 - by ``streaming``
    return datasets.load_dataset(source, name=_config_name(config), split=split, streaming=streaming)


def _config_name(config: str) -> str | None:
    return None if config == DEFAULT_CONFIG else config


def _load_folder(path: Path, dataset: str, split: str, config: str) -> Rows:
    if _has_data_files(path):
        with _explained(dataset, split, config):
            rows = rows_of_dataset(dataset, _load(str(path), split, config))
            return replace(rows, notes=_note_left_out(path, config))
    try:
        saved = datasets.load_from_disk(str(path))
    except FileNotFoundError as error:
        raise InputError(
            f"folder {str(path)!r} holds no complete saved data set: {error}",
            remedy=f"give a folder written by datasets' save_to_disk, or with data files ({', '.join(READERS)})",
        ) from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"the data set saved in {str(path)!r} cannot be read: {error}", remedy="save it again with save_to_disk"
        ) from error
    if isinstance(saved, DatasetDict):
        splits = {str(name): rows_of_dataset(dataset, rows) for name, rows in saved.items()}
    else:
        splits = {str(saved.split or "train"): rows_of_dataset(dataset, saved)}
    return _select(dataset, splits, split)


def _note_left_out(path: Path, config: str) -> tuple[Message, ...]:
    """Note the data files of a folder that ``datasets`` gives to no split."""
    found = datasets.load_dataset_builder(str(path), name=_config_name(config)).config.data_files or {}
    taken = {Path(file).resolve() for files in found.values() for file in files}
    files = sorted(str(file.relative_to(path)) for file in _data_files(path) if file.resolve() not in taken)
    if not files:
        return ()
    return (Message("rows.files_left_out", folder=str(path), count=len(files), files=tuple(files[:3])),)


def _data_files(path: Path) -> Iterator[Path]:
    return (file for file in path.rglob("*") if data_suffix(file) in READERS and file.name not in _SAVED)


def _has_data_files(path: Path) -> bool:
    """Return True for a folder of data files, as repositories on the hub are; a saved one has its own description."""
    if any((path / name).exists() for name in _SAVED):
        return False
    return any(True for _ in _data_files(path))


def _select(dataset: str, splits: Mapping[str, Rows], split: str) -> Rows:
    there = ", ".join(f"{name} ({len(rows)} rows)" for name, rows in splits.items())
    try:
        parts = ReadInstruction.from_spec(split).to_absolute({name: len(rows) for name, rows in splits.items()})
    except ValueError as error:
        raise InputError(
            f"split {split!r} cannot be taken from {dataset!r}: {error}",
            remedy=f"the splits are: {there}; a part is written train[:50%] or train[10:20]",
        ) from error
    taken = [_slice(splits[part.splitname], part.from_, part.to) for part in parts]
    return taken[0] if len(taken) == 1 else joined(taken)


def _slice(rows: Rows, start: int, end: int) -> Rows:
    whole = start == 0 and end == len(rows)
    return rows if whole else rows.select(np.arange(start, min(end, len(rows))))


def _check_hub_id(dataset: str) -> None:
    if data_suffix(dataset) in READERS or not HUB_ID.fullmatch(dataset):
        raise InputError(
            f"data set {dataset!r} does not exist: no such file or folder",
            remedy=f"check the path; a relative one starts from {str(Path.cwd())!r}",
        )


def _load_hub(dataset: str, split: str, config: str) -> Rows:
    _check_hub_id(dataset)
    with _explained(dataset, split, config):
        if _hub_answers(dataset):
            return rows_of_dataset(dataset, _load(dataset, split, config))
        with _offline():  # a data set that was loaded before is still cached
            return rows_of_dataset(dataset, _load(dataset, split, config))


@contextmanager
def _explained(dataset: str, split: str, config: str) -> Iterator[None]:
    """Raise an InputError in place of the errors of the hub and of ``datasets``."""
    try:
        yield
    except (ConnectionError, HTTPError) as error:
        raise InputError(
            f"data set {dataset!r} is no local file, and the Hugging Face hub cannot be reached "
            f"({type(error).__name__})",
            remedy=FILE_REMEDY,
        ) from error
    except DatasetNotFoundError as error:
        raise InputError(
            f"data set {dataset!r} cannot be had: {error}",
            remedy=f"check the id, log in where it is private, or {FILE_REMEDY}",
        ) from error
    except pa.ArrowException as error:
        raise InputError(f"data set {dataset!r} cannot be loaded: {error}", remedy=FILE_REMEDY) from error
    except ValueError as error:
        if found := _CONFIGS.search(str(error)):
            problem = "has several configurations" if config == DEFAULT_CONFIG else f"has no configuration {config!r}"
            raise InputError(
                f"data set {dataset!r} {problem}", remedy=f"choose one with --dataset-config: {found[1]}"
            ) from error
        raise InputError(
            f"split {split!r} cannot be taken from {dataset!r}: {error}",
            remedy="name a split that is there; a part is written train[:50%] or train[10:20]",
        ) from error
    except (DatasetsError, RuntimeError, OSError) as error:
        raise InputError(f"data set {dataset!r} cannot be loaded: {error}", remedy=FILE_REMEDY) from error


def _hub_answers(dataset: str) -> bool:
    """Return True if the hub answers one request; ``datasets`` itself would retry for 23 seconds."""
    try:
        huggingface_hub.HfApi().dataset_info(dataset, timeout=10)
    except OSError as error:  # an error status is an answer; offline mode, which the user chose, is not
        return not isinstance(error, ConnectionError)
    except HTTPError:
        return False
    return True


@contextmanager
def _offline() -> Iterator[None]:
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence progress bars and warnings of the libraries."""
    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    datasets_bars, hub_bars = datasets.are_progress_bars_disabled(), are_progress_bars_disabled()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    datasets.disable_progress_bars()
    disable_progress_bars()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not datasets_bars:
            datasets.enable_progress_bars()
        if not hub_bars:
            enable_progress_bars()

"""Data sources: a hub id, a local file, a saved ``datasets`` folder, or the built-in data set."""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import datasets
import huggingface_hub
from datasets import Dataset, DatasetDict, ReadInstruction
from datasets.exceptions import DatasetNotFoundError, DatasetsError
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # the hub's own HTTP client, by any version
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from lorascope.data.sources.builtin_rows import read_stdlib
from lorascope.data.sources.files import READERS, read_file
from lorascope.errors import InputError

STDLIB = "builtin:python-stdlib"
HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
FILE_REMEDY = "give rows as a file instead, such as --dataset rows.json (.jsonl, .csv, .parquet)"


def load_rows(dataset: str, split: str) -> Dataset:
    """Load a split (``train``, ``train[:50%]``, ``train[10:20]``) of a data set.

    Raises:
        InputError: the data set or the split does not exist, or has no rows.
    """
    with _quiet():
        path = Path(dataset).expanduser()
        if dataset.startswith("builtin:"):
            rows = _select(dataset, {"train": _builtin(dataset)}, split)
        elif path.is_dir():
            rows = _select(dataset, _load_folder(path), split)
        elif path.exists():
            rows = _select(dataset, {"train": read_file(path)}, split)
        elif path.suffix.lower() in READERS or not HUB_ID.fullmatch(dataset):
            raise InputError(
                f"data set {dataset!r} does not exist: no such file or folder",
                remedy=f"check the path; a relative one starts from {str(Path.cwd())!r}",
            )
        else:
            rows = _load_hub(dataset, split)
    if len(rows) == 0:
        raise InputError(f"split {split!r} of {dataset!r} has no rows", remedy="choose a split with rows in it")
    return rows


def _builtin(dataset: str) -> Dataset:
    if dataset != STDLIB:
        raise InputError(f"there is no built-in data set {dataset!r}", remedy=f"the built-in one is {STDLIB}")
    return Dataset.from_list(list(read_stdlib()))


def _load_folder(path: Path) -> Mapping[str, Dataset]:
    try:
        saved = datasets.load_from_disk(str(path))
    except FileNotFoundError as error:
        raise InputError(
            f"folder {str(path)!r} holds no complete saved data set: {error}",
            remedy="give a folder written by datasets' save_to_disk, or one file of rows",
        ) from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"the data set saved in {str(path)!r} cannot be read: {error}", remedy="save it again with save_to_disk"
        ) from error
    if isinstance(saved, DatasetDict):
        return {str(name): rows for name, rows in saved.items()}
    return {str(saved.split or "train"): saved}


def _select(dataset: str, splits: Mapping[str, Dataset], split: str) -> Dataset:
    there = ", ".join(f"{name} ({len(rows)} rows)" for name, rows in splits.items())
    try:
        parts = ReadInstruction.from_spec(split).to_absolute({name: len(rows) for name, rows in splits.items()})
    except ValueError as error:
        raise InputError(
            f"split {split!r} cannot be taken from {dataset!r}: {error}",
            remedy=f"the splits are: {there}; a part is written train[:50%] or train[10:20]",
        ) from error
    taken = [
        # select refuses a range that starts beyond the last row, even an empty one
        splits[part.splitname].select(range(part.from_, part.to) if part.from_ < part.to else [])
        for part in parts
    ]
    return taken[0] if len(taken) == 1 else datasets.concatenate_datasets(taken)


def _load_hub(dataset: str, split: str) -> Dataset:
    try:
        if _hub_answers(dataset):
            return datasets.load_dataset(dataset, split=split)
        with _offline():  # a data set that was loaded before is still cached
            return datasets.load_dataset(dataset, split=split)
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
    except ValueError as error:
        raise InputError(
            f"split {split!r} cannot be taken from {dataset!r}: {error}",
            remedy="name a split that is there; a part is written train[:50%] or train[10:20]",
        ) from error
    except (DatasetsError, RuntimeError, OSError) as error:
        raise InputError(f"data set {dataset!r} cannot be loaded: {error}", remedy=FILE_REMEDY) from error


def _hub_answers(dataset: str) -> bool:
    """Ask once; ``datasets`` itself would retry for 23 seconds."""
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

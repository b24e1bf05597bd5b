"""Cache of tokenised rows on disk, by the content of everything that they depend on."""

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from lorascope.atomic import new_file
from lorascope.data.encoded import COLUMNS, EncodedRows, Encoder
from lorascope.data.sources.rows import Rows
from lorascope.paths import cache_folder
from lorascope.spec.fields.rows import RowFields

MOST_BYTES = 4 << 30
"""The least recently used rows are removed until the others take no more."""
_LIBRARIES = ("lorascope", "transformers", "tokenizers", "jinja2", "numpy")
_CHOOSES_ROWS = frozenset(
    {
        "model", "dataset", "dataset_config", "mix", "max_rows", "streaming", "split", "eval_split", "eval_examples",
        "split_seed",
    }
)  # fmt: skip
"""Fields of the rows that choose them and do not change them."""


def encode_cached(encoder: Encoder, rows: Rows, encode: Callable[[], EncodedRows]) -> EncodedRows:
    """Return rows that were encoded before, or encode them and keep them."""
    key = _key(encoder, rows)
    if key is None:
        return encode()
    path = cache_folder() / "rows" / f"{key}.safetensors"
    found = _load(path)
    if found is None:
        found = encode()
        with contextlib.suppress(OSError):  # a full or read-only disk costs time alone
            _store(path, found)
    return found


def _key(encoder: Encoder, rows: Rows) -> str | None:
    """Hash content, tokenizer, fields, versions and this package's code; None for tokenizers that are not one text."""
    tokenizer = encoder.tokenizer
    if not tokenizer.is_fast:
        return None
    parts = (
        rows.fingerprint(),
        repr((encoder.columns, encoder.sample, sorted(encoder.end_ids))),
        tokenizer.backend_tokenizer.to_str(),
        type(tokenizer).__name__,
        repr(sorted(tokenizer.special_tokens_map.items())),
        str(tokenizer.chat_template),
        encoder.spec.model_dump_json(include=RowFields.model_fields.keys() - _CHOOSES_ROWS),
        *(version(name) for name in _LIBRARIES),
        _hash_code(),
    )
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()


@cache
def _hash_code() -> str:
    """Hash the modules that make tokens of rows."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _load(path: Path) -> EncodedRows | None:
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads(file.metadata()["about"])
            tensors = {name: file.get_tensor(name) for name in COLUMNS}
        os.utime(path)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return None
    return EncodedRows(**tensors, counts=Counter(about["counts"]), first_target=about["first_target"])


def _store(path: Path, rows: EncodedRows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    about = json.dumps({"counts": rows.counts, "first_target": rows.first_target})
    with new_file(path, derived=True) as aside:
        tensors: dict[str, npt.NDArray[Any]] = {name: getattr(rows, name) for name in COLUMNS}
        save_file(tensors, aside, metadata={"about": about})
    _prune(path.parent)


def _prune(folder: Path) -> None:
    kept = 0
    for file in sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime_ns, reverse=True):
        kept += file.stat().st_size
        if kept > MOST_BYTES:
            file.unlink()

"""Rows whose texts are alike, found by MinHash signatures and locality-sensitive hashing (``datasketch``).

A. Z. Broder, On the resemblance and containment of documents, 1997.
"""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lorascope.data.row_keys import Key, normal_form
from lorascope.errors import InputError

if TYPE_CHECKING:
    from datasketch import MinHash

SIMILAR = 0.8
"""Share of their shingles that similar rows have in common, as an estimate."""
PERMUTATIONS = 128
"""Numbers of a signature: the estimate's standard error is at most 0.09."""
_SHINGLE = 5
"""Characters of a shingle."""
_COMMON = frozenset({"system", "tools", "documents", "chat_template_kwargs", "role", "from"})
"""Columns and keys whose text many rows share."""


def check_available() -> None:
    """Raise InputError if the package is not installed."""
    if find_spec("datasketch") is None:
        raise InputError(
            "dedupe is minhash, and the package datasketch is not installed",
            remedy="install it: pip install 'lorascope[minhash]'; or leave dedupe out",
        )


def signature(cells: Mapping[str, object]) -> npt.NDArray[np.uint32]:
    """Return the signature of a row's texts, [PERMUTATIONS], without system prompts and tools."""
    text = normal_form(" ".join(_texts(cells)))
    shingles = {text[start : start + _SHINGLE] for start in range(max(1, len(text) - _SHINGLE + 1))}
    made = _minhash()
    made.update_batch([shingle.encode() for shingle in shingles])
    return np.asarray(made.hashvalues, dtype=np.uint32)


def similar_rows(signatures: npt.NDArray[np.uint32]) -> Key:
    """Return a key by which each row equals the first row that it is similar to, [rows, 2]."""
    from datasketch import MinHashLSH  # noqa: PLC0415 - optional

    # candidates are compared, so the index may name too many but should miss few
    found = MinHashLSH(threshold=SIMILAR, num_perm=PERMUTATIONS, weights=(0.05, 0.95))
    kept: dict[int, MinHash] = {}
    first = np.arange(len(signatures), dtype=np.uint64)
    for row, values in enumerate(signatures):
        made = _minhash(values)
        # only rows that are unlike all before are kept, so that many copies of one stay few
        alike = [other for other in found.query(made) if kept[other].jaccard(made) >= SIMILAR]
        if alike:
            first[row] = min(alike)
        else:
            found.insert(row, made, check_duplication=False)
            kept[row] = made
    return np.stack([first, np.zeros_like(first)], axis=1)


def _minhash(values: npt.NDArray[np.uint32] | None = None) -> "MinHash":
    from datasketch import MinHash  # noqa: PLC0415 - optional

    return MinHash(num_perm=PERMUTATIONS, hashvalues=values, scheme="affine32")


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        if "system" in (value.get("role"), value.get("from")):
            return
        for key, inner in value.items():
            if key not in _COMMON:
                yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, int | float):
        yield str(value)

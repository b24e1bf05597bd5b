"""Keys of rows by which copies are found: prompts in a normal form, conversations, and tokens within max_length."""

import hashlib
import unicodedata

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lorascope.data.formats.rendering import RenderedRow

Key = npt.NDArray[np.uint64]
"""A hash of 16 bytes a row, [rows, 2]."""
PROMPT, CONVERSATION, EXACT, TOKENS = range(4)
"""Places of a row's keys: its prompt and all before its last answer, both in the normal form, its prompt as it is, and
its token ids within ``max_length``."""
KEYS = 4
_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff"))


def normal_form(text: str) -> str:
    """Return a text without what makes copies of it: case, white space, line ends, Unicode's forms, invisible signs."""
    if not text.isascii():
        # case folding may undo the normal form, so it is made twice (Unicode, section 3.13, D146)
        folded = unicodedata.normalize("NFKC", text.translate(_INVISIBLE)).casefold()
        return " ".join(unicodedata.normalize("NFKC", folded).split())
    return " ".join(text.lower().split())


def keys_of(row: RenderedRow, ids: npt.NDArray[np.int64]) -> bytes:
    """Return a row's four keys, 64 bytes, from its text and its token ids within ``max_length``."""
    conversation = normal_form(row.text[: row.spans[-1][0]] if row.spans else "") or normal_form(row.prompt)
    # a conversation that the assistant opens has no prompt before its first answer
    prompt = conversation if row.prompt == row.text else normal_form(row.prompt)
    texts = (prompt.encode(), conversation.encode(), row.prompt.encode(), ids.astype("<i4").tobytes())
    return b"".join(hashlib.blake2b(text, digest_size=16).digest() for text in texts)


def group_rows(*keys: Key) -> npt.NDArray[np.int64]:
    """Number the groups of rows, [rows], from 0 in the order of their first rows.

    Rows that are equal in any of the keys are one group, and so are rows of overlapping groups.
    """
    n_rows = len(keys[0])
    values = [_numbered(key) for key in keys]
    if len(values) == 1:
        return _in_order(values[0])
    rows = np.tile(np.arange(n_rows), len(values))
    nodes = np.concatenate([value + n_rows * (place + 1) for place, value in enumerate(values)])
    size = n_rows * (len(values) + 1)
    links = coo_array((np.ones(len(rows), np.int8), (rows, nodes)), shape=(size, size))
    return _in_order(connected_components(links, directed=False)[1][:n_rows])


def first_of_each(key: Key) -> npt.NDArray[np.bool_]:
    """Return True for each row that repeats no earlier one, [rows]."""
    first = np.zeros(len(key), dtype=bool)
    first[np.unique(_numbered(key), return_index=True)[1]] = True
    return first


def count_different(key: Key) -> int:
    """Count the different keys."""
    return int(_numbered(key).max(initial=-1)) + 1


def _numbered(key: Key) -> npt.NDArray[np.int64]:
    """Number equal keys equally, from 0."""
    order = np.lexsort((key[:, 1], key[:, 0]))
    ordered = key[order]
    starts = np.any(ordered[1:] != ordered[:-1], axis=1)
    numbers = np.empty(len(key), dtype=np.int64)
    numbers[order] = np.concatenate([np.zeros(min(1, len(key)), np.int64), np.cumsum(starts)])
    return numbers


def _in_order(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]

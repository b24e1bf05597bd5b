"""Tokenised examples, and their split into training and held-out rows."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lorascope.message import Message


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Example:
    """One tokenised row."""

    input_ids: npt.NDArray[np.int64]
    """[L] token ids, L >= 2."""
    target_mask: npt.NDArray[np.bool_]
    """[L] True for targets, which are predicted from the token before; never True for the first token."""

    @property
    def n_tokens(self) -> int:
        """Number of tokens."""
        return len(self.input_ids)

    @property
    def n_targets(self) -> int:
        """Number of target tokens."""
        return int(np.count_nonzero(self.target_mask))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Splits:
    """Training and held-out rows of one study."""

    train: tuple[Example, ...]
    eval: tuple[Example, ...]
    """Held-out rows, which share no prompt with ``train``."""
    data_hash: str
    """SHA-256 in hex of all token ids, masks and the split."""
    format: str
    """Row format, such as ``alpaca``."""
    notes: tuple[Message, ...]
    """What was done to the rows."""


def hash_splits(splits: Iterable[tuple[Example, ...]]) -> str:
    """Return the SHA-256 in hex of splits in their order, equal on every platform."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update(np.int64(len(split)).astype("<i8").tobytes())
        for example in split:
            digest.update(np.int64(example.n_tokens).astype("<i8").tobytes())
            digest.update(example.input_ids.astype("<i8").tobytes())
            digest.update(example.target_mask.astype("u1").tobytes())
    return digest.hexdigest()

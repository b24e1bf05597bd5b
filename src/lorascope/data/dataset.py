"""What training reads: token ids, the mask of the loss, and the two halves of the rows."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lorascope.message import Message


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Example:
    """One row as the model sees it."""

    input_ids: npt.NDArray[np.int64]
    """[L] token ids, L >= 2."""
    target_mask: npt.NDArray[np.bool_]
    """[L] True where the token is a target, predicted from the token before it; the first token never is one."""

    @property
    def n_tokens(self) -> int:
        """Count the tokens, targets or not."""
        return len(self.input_ids)

    @property
    def n_targets(self) -> int:
        """Count the tokens the loss is taken on."""
        return int(np.count_nonzero(self.target_mask))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Splits:
    """The rows of one study, ready for training and evaluation."""

    train: tuple[Example, ...]
    eval: tuple[Example, ...]
    """Held out: no prompt of these is a prompt of ``train``."""
    data_hash: str
    """SHA-256, in hex, over all token ids, masks and the split."""
    format: str
    """How columns became text, such as ``alpaca``."""
    notes: tuple[Message, ...]
    """What was done to the rows."""


def hash_halves(halves: Iterable[tuple[Example, ...]]) -> str:
    """Hash the halves in their order: SHA-256, in hex, the same on every platform."""
    digest = hashlib.sha256()
    for half in halves:
        digest.update(np.int64(len(half)).astype("<i8").tobytes())
        for example in half:
            digest.update(np.int64(example.n_tokens).astype("<i8").tobytes())
            digest.update(example.input_ids.astype("<i8").tobytes())
            digest.update(example.target_mask.astype("u1").tobytes())
    return digest.hexdigest()

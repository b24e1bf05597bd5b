"""Retry with smaller micro-batches on out-of-memory errors."""

import errno
import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

T = TypeVar("T")

_TEXTS = ("can't allocate memory", "cannot allocate memory", "out of memory", "alloc_failed", "bad_alloc", "bad alloc")
"""Texts of Torch, its libraries and drivers in a RuntimeError of no type of its own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if memory ran out, on any device."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, RuntimeError):
        text = str(error).lower()
        return isinstance(error, torch.OutOfMemoryError) or any(known in text for known in _TEXTS)
    return isinstance(error, MemoryError)


@dataclass(kw_only=True)
class MicroBatchLimit:
    """The largest micro-batch, in tokens, that fitted into memory."""

    tokens: int | None = None
    """None: as many as the study asks for."""
    on_lower: Callable[[int], None] = lambda _: None
    """Called with every new limit."""

    def of(self, asked: int) -> int:
        """Return the limit if the study asks for ``asked`` tokens."""
        return asked if self.tokens is None else min(asked, self.tokens)

    def lower(self, tokens: int) -> None:
        """Set a lower limit after an out-of-memory error."""
        self.tokens = tokens
        self.on_lower(tokens)


def retry_smaller_on_oom(limit: MicroBatchLimit, asked: int, lengths: Sequence[int], work: Callable[[int], T]) -> T:
    """Do work in micro-batches of some size, and again with half that size each time memory runs out.

    Args:
        limit: lowered for all later work as well.
        asked: tokens of a micro-batch that the study asks for.
        lengths: tokens of the rows. In the end the longest goes alone; no smaller micro-batch would need less memory.
        work: called with the tokens of a micro-batch; must be able to start over.

    Raises:
        MemoryError, RuntimeError: what the work raised at the floor.
    """
    while True:
        tokens = limit.of(asked)
        try:
            return work(tokens)
        except (MemoryError, OSError, RuntimeError) as error:
            if not is_out_of_memory(error) or tokens <= max(lengths):
                raise
        # after the handler, whose traceback would keep the tensors of the failed micro-batch
        gc.collect()
        limit.lower(min(tokens, len(lengths) * max(lengths)) // 2)

"""When memory runs out: smaller passes, and the same work once more."""

import errno
import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

T = TypeVar("T")

_TEXTS = ("can't allocate memory", "cannot allocate memory", "out of memory", "alloc_failed", "bad_alloc", "bad alloc")
"""How Torch, its libraries and drivers say it in a RuntimeError that has no type of its own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether memory ran out, on any device."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, RuntimeError):
        text = str(error).lower()
        return isinstance(error, torch.OutOfMemoryError) or any(known in text for known in _TEXTS)
    return isinstance(error, MemoryError)


@dataclass(kw_only=True)
class MicroBatchLimit:
    """Most tokens of a pass for which memory was found to be enough."""

    tokens: int | None = None
    """None: as many as the study asks for."""
    on_lower: Callable[[int], None] = lambda _: None
    """Told of every new limit."""

    def of(self, asked: int) -> int:
        """Return the limit, where the study asks for ``asked`` tokens."""
        return asked if self.tokens is None else min(asked, self.tokens)

    def lower(self, tokens: int) -> None:
        """Keep a limit that was found too high from being used again."""
        self.tokens = tokens
        self.on_lower(tokens)


def retry_smaller_on_oom(limit: MicroBatchLimit, asked: int, lengths: Sequence[int], work: Callable[[int], T]) -> T:
    """Do work in passes of some size, and again in passes of half that size each time memory runs out.

    Args:
        limit: lowered for all later work, too.
        asked: tokens of a pass that the study asks for.
        lengths: tokens of the rows. The longest goes alone at last: no smaller pass would need less.
        work: given the tokens of a pass; must be able to start over.

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
        # behind the handler, whose traceback would keep the tensors of the failed pass
        gc.collect()
        limit.lower(min(tokens, len(lengths) * max(lengths)) // 2)

"""Encoding of many rows in several processes."""

import os
import signal
import sys
import time
import types
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context

from lorascope.data.encoded import EncodedRows, Encoder, join_encoded
from lorascope.data.encoded_cache import encode_cached
from lorascope.data.sources.rows import Row, Rows

MANY_ROWS = 20_000
"""Fewer rows take less time than the processes need to start."""
_BATCH_ROWS = 2_000
_AHEAD = 3
"""Batches a process that may wait, so that none is idle and few rows are in memory."""
_TELL_SECONDS = 10.0

Progress = Callable[[int, int], None]
"""Called from time to time with the number of encoded rows and of all rows."""


def encode_rows(encoder: Encoder, rows: Rows, *, processes: int, tell: Progress | None) -> EncodedRows:
    """Encode all rows in their order; many rows in ``processes``, and only if they are not in the cache.

    Args:
        encoder: of these rows.
        rows: read once, or again in this process if the others end.
        processes: at most so many.
        tell: called every ten seconds, if given.

    Raises:
        InputError: a row cannot be used; the first one is named.
    """
    if len(rows) < MANY_ROWS:
        return _encode_all(encoder, rows, processes=1, tell=tell)
    return encode_cached(encoder, rows, lambda: _encode_all(encoder, rows, processes=processes, tell=tell))


def _encode_all(encoder: Encoder, rows: Rows, *, processes: int, tell: Progress | None) -> EncodedRows:
    if processes > 1:
        try:
            return join_encoded(_told(_in_processes(encoder, rows, processes), len(rows), tell))
        except BrokenProcessPool:  # killed for want of memory, or a tokenizer that only this process can load
            pass
    here = (encoder.encode(batch, first) for first, batch in _batches(rows, encoder.format.columns))
    return join_encoded(_told(here, len(rows), tell))


def _batches(rows: Rows, columns: Sequence[str]) -> Iterator[tuple[int, list[Row]]]:
    """Yield the number of a batch's first row, from 1, and its rows."""
    cells: Iterator[Row] = ({column: row.get(column) for column in columns} for row in rows)
    first = 1
    while batch := list(islice(cells, _BATCH_ROWS)):
        yield first, batch
        first += len(batch)


def _told(parts: Iterator[EncodedRows], total: int, tell: Progress | None) -> Iterator[EncodedRows]:
    last = time.monotonic()
    for number, part in enumerate(parts, start=1):
        yield part
        if tell and time.monotonic() - last >= _TELL_SECONDS:
            last = time.monotonic()
            tell(min(total, number * _BATCH_ROWS), total)


def _in_processes(encoder: Encoder, rows: Rows, processes: int) -> Iterator[EncodedRows]:
    pool = ProcessPoolExecutor(processes, get_context("spawn"), initializer=_begin, initargs=(encoder,))
    waiting: deque[Future[EncodedRows]] = deque()
    try:
        for first, batch in _batches(rows, encoder.format.columns):
            with without_main():  # the first batch starts the processes
                waiting.append(pool.submit(_encode, batch, first))
            if len(waiting) > _AHEAD * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def without_main() -> Iterator[None]:
    """Hide the main module, which processes that start in the block would run again and do not need."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


_encoders: list[Encoder] = []
"""In a process of the pool, its encoder."""


def _begin(encoder: Encoder) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that waits for this one ends it
    # read when the tokenizer first works: one thread a process, as each has a core
    os.environ.update(TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1")
    _encoders.append(encoder)


def _encode(rows: list[Row], first_number: int) -> EncodedRows:
    return _encoders[0].encode(rows, first_number)

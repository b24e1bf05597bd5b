"""Standard output for programs: the JSON of a command, and nothing that libraries or other processes print."""

import ctypes
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import TextIO

_STDOUT, _STDERR = 1, 2


@contextmanager
def program_output(*, alone: bool) -> Iterator[TextIO]:
    """Yield where a command writes its result.

    Args:
        alone: whatever else is written to standard output until the end goes to standard error: by Python, by
            libraries in C, and by processes that inherit its descriptor.
    """
    stdout = sys.stdout
    if not alone:
        yield stdout
        return
    with redirect_stdout(sys.stderr):
        if _descriptor(stdout) != _STDOUT:  # another object stands in for it
            yield stdout
            return
        stdout.flush()
        with os.fdopen(os.dup(_STDOUT), "w", encoding=stdout.encoding, errors=stdout.errors) as own:
            with suppress(OSError):  # standard error is closed
                os.dup2(_STDERR, _STDOUT)
            try:
                yield own
            finally:
                ctypes.CDLL(None).fflush(None)  # what C keeps back would come behind the result
                os.dup2(own.fileno(), _STDOUT)


def _descriptor(stream: TextIO | None) -> int | None:
    try:
        return None if stream is None else stream.fileno()
    except io.UnsupportedOperation:
        return None

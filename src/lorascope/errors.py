"""What can go wrong, and what the user can do about it.

A message has three parts: what is wrong, the value that is wrong, and the remedy.
"""

import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

_PART = 1000


class LorascopeError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 1


class InputError(LorascopeError):
    """Something the user gave cannot be used; nothing expensive has started."""

    exit_code = 2

    def __init__(self, problem: str, *, remedy: str) -> None:
        self.problem = _readable(problem)
        self.remedy = _readable(remedy)
        super().__init__(f"{self.problem}\n  -> {self.remedy}")

    def __reduce__(self) -> tuple[Callable[..., "InputError"], tuple[str]]:
        return partial(InputError, remedy=self.remedy), (self.problem,)


def _readable(text: str) -> str:
    """Leave the middle out where a value of the user's is longer than a person reads."""
    return text if len(text) <= 2 * _PART else f"{text[:_PART]} ... {text[-_PART:]}"


class UnsupportedModelError(LorascopeError):
    """A model does what one way of computing it cannot; a slower way is tried."""


class SpecError(InputError):
    """Every error of one study file or command line, reported together."""

    def __init__(self, errors: Sequence[InputError]) -> None:
        self.errors = tuple(errors)
        head = f"{len(errors)} problems in the study" if len(errors) > 1 else "a problem in the study"
        Exception.__init__(self, f"{head}:\n" + "\n".join(str(error) for error in errors))
        self.problem = "; ".join(error.problem for error in errors)
        self.remedy = "; ".join(error.remedy for error in errors)


class Interrupted(LorascopeError):  # noqa: N818 - it says what happened; nothing is wrong
    """The user stopped the run; what was done is saved and the same command continues it."""

    exit_code = 130


MODEL_ERRORS = (TypeError, ValueError, KeyError, AttributeError, RuntimeError, UnsupportedModelError)
"""Errors by which a model refuses one way of computing it; see ``is_own_fault``."""


def is_own_fault(error: BaseException) -> bool:
    """Return True if an error came from this package's own code, rather than from a model, or the libraries it uses.

    The innermost frame of the traceback decides, Torch's frames left out: they belong to their caller.
    """
    torch = getattr(sys.modules.get("torch"), "__file__", None)
    files = [Path(frame.f_code.co_filename) for frame, _ in traceback.walk_tb(error.__traceback__)]
    callers = [file for file in files if torch is None or Path(torch).parent not in file.parents]
    own = bool(callers) and Path(__file__).parent in callers[-1].parents
    return own and not isinstance(error, UnsupportedModelError)

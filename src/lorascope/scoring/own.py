"""A metric of the user's own: a function in a Python file."""

import runpy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lorascope.errors import InputError
from lorascope.scoring.names import own_function
from lorascope.scoring.scorer import ScoredRow, ScoreError, checked


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnScorer:
    """A function of prompt, true answer and answer."""

    name: str
    function: Callable[[str, str, str], object]

    def score(self, row: ScoredRow, answer: str) -> float:
        """Call the function; see ``Scorer``. Whatever it raises is the row's error."""
        try:
            value = self.function(row.prompt, row.reference, answer)
        except Exception as error:
            raise ScoreError(f"{self.name} raised {type(error).__name__}: {error}") from error
        return checked(self.name, value)


def load_own(name: str) -> OwnScorer:
    """Run the file and return its function.

    Raises:
        InputError: there is no such file, it fails, or it has no such function.
    """
    found = own_function(name)
    assert found is not None
    path, function = found
    if not path.is_file():
        raise InputError(
            f"metric {name} names {path}, which is no file", remedy=f"check the path; it starts from {Path.cwd()}"
        )
    names = _run(path, name)
    chosen = names.get(function)
    if not callable(chosen):
        there = [key for key, value in names.items() if callable(value) and not key.startswith("_")]
        raise InputError(
            f"metric {name}: {path} has no function {function!r}",
            remedy=f"name one that it has: {', '.join(there)}" if there else "define it there",
        )
    return OwnScorer(name=name, function=chosen)


def _run(path: Path, name: str) -> dict[str, object]:
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)  # it may import its neighbours
    try:
        return runpy.run_path(str(path), run_name="lorascope_metric")
    except (Exception, SystemExit) as error:
        raise InputError(
            f"metric {name}: {path} fails when it is imported ({type(error).__name__}: {error})",
            remedy=f"run it alone: python {path}",
        ) from error
    finally:
        sys.path.remove(folder)

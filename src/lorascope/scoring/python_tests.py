"""The metric ``python_tests``: whether the code of an answer passes the tests of its row."""

import os
import re
from dataclasses import dataclass, field

from lorascope.errors import InputError
from lorascope.scoring.names import PYTHON_TESTS
from lorascope.scoring.sandbox import Limits, passes
from lorascope.scoring.scorer import RowError, ScoredRow

_BLOCK = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class PythonTests:
    """Runs the code of answers. Raises InputError where processes cannot be limited."""

    name: str = PYTHON_TESTS
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if os.name != "posix":
            raise InputError(
                f"metric {PYTHON_TESTS} limits processes as Linux and macOS can, and this system is {os.name}",
                remedy="leave the metric out here",
            )

    def score(self, row: ScoredRow, answer: str) -> float:
        """Return 1 where the answer's code and then the row's tests run without an error; see ``Scorer``."""
        if row.tests is None:
            raise RowError("the row has no tests")
        return float(passes(code_of(answer), row.tests, self.limits))


def code_of(answer: str) -> str:
    """Return the first fenced block of an answer, which may lack its end; without one, the whole answer."""
    found = _BLOCK.search(answer)
    return found[1] if found else answer

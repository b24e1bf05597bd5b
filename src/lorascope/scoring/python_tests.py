"""The metric ``python_tests``: whether the code of an answer passes the tests of its row."""

import ast
import builtins
import os
import re
import warnings
from collections.abc import Iterator
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
        """Return 1 where the answer's code and then the row's tests run without an error; see ``Scorer``.

        Code that cannot be parsed, or does not define what the tests name, runs behind the prompt where that helps.
        """
        if row.tests is None:
            raise RowError("the row has no tests")
        return float(passes(_code(row.prompt, code_of(answer), row.tests), row.tests, self.limits))


def _code(prompt: str, code: str, tests: str) -> str:
    """Return the code that is tested: behind its prompt where only both together define what the tests name."""
    wanted = _names_of_tests(tests)
    alone, joined = _defined(code), _defined(prompt + code)
    return prompt + code if not _is_whole(alone, wanted) and _is_whole(joined, wanted) else code


def _is_whole(defined: set[str] | None, wanted: set[str]) -> bool:
    return defined is not None and wanted <= defined


def _defined(code: str) -> set[str] | None:
    """Return the names that code binds; None where it cannot be parsed."""
    tree = _parsed(code)
    return None if tree is None else set(_bound(tree))


def _names_of_tests(tests: str) -> set[str]:
    """Return the names that tests use and do not bind themselves."""
    tree = _parsed(tests)
    if tree is None:
        return set()
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return used - set(_bound(tree)) - set(dir(builtins))


def _parsed(code: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a model writes, such as escapes that Python does not know
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _bound(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).partition(".")[0]
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name


def code_of(answer: str) -> str:
    """Return the first fenced block of an answer, which may lack its end; without one, the whole answer."""
    found = _BLOCK.search(answer)
    return found[1] if found else answer

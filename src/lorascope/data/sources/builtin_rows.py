"""Built-in data set: functions of Python's standard library, docstring to body."""

import ast
import os
import re
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "idle_test", "encodings", "pydoc_data", "site-packages", "dist-packages", "__pycache__"}
)
GENERATED = re.compile(r"auto(matically|-)?\s?generated|file is generated", re.IGNORECASE)


def read_stdlib() -> tuple[dict[str, str], ...]:
    """Pair signature and docstring (``prompt``) with the body (``completion``) of each function, in a fixed order.

    Together they are one function's source, dedented and without decorators. Tests, generated files and exact repeats
    are left out. The functions depend on the Python version.
    """
    return _read_folder(Path(sysconfig.get_path("stdlib")))


@cache
def _read_folder(folder: Path) -> tuple[dict[str, str], ...]:
    return tuple(
        {"prompt": prompt, "completion": completion}
        for prompt, completion in dict.fromkeys(
            pair for path in _source_files(folder) for pair in _pairs(_read_source(path))
        )
    )


def _source_files(folder: Path) -> list[Path]:
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        # in place, so that os.walk skips them too: site-packages may hold very many files
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS]
        found += [
            Path(parent, name) for name in names if name.endswith(".py") and not name.startswith("_sysconfigdata")
        ]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _read_source(path: Path) -> str:
    try:
        with tokenize.open(path) as file:
            source = file.read()
    except (SyntaxError, UnicodeDecodeError):  # wrong declared encoding
        return ""
    return "" if GENERATED.search("\n".join(source.split("\n", 10)[:10])) else source


def _pairs(source: str) -> Iterator[tuple[str, str]]:
    try:
        with warnings.catch_warnings(action="ignore"):  # invalid escapes, which would raise under -W error
            tree = ast.parse(source)
    except SyntaxError:  # templates, or another version's syntax
        return
    lines = source.split("\n")
    for function in _outer_functions(tree):
        pair = _pair(function, lines)
        if pair is not None:
            yield pair


def _outer_functions(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Find functions and methods, without nested functions, which the outer body contains."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
        elif isinstance(child, ast.stmt | ast.ExceptHandler):
            yield from _outer_functions(child)


def _pair(function: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> tuple[str, str] | None:
    if len(function.body) < 2 or not ast.get_docstring(function, clean=False):
        return None
    docstring, first = function.body[0], function.body[1]
    assert docstring.end_lineno is not None
    assert function.end_lineno is not None
    if first.lineno <= docstring.end_lineno:  # docstring and body on one line
        return None
    margin = function.col_offset
    prompt = _moved_left(lines[function.lineno - 1 : docstring.end_lineno], margin)
    completion = _moved_left(lines[docstring.end_lineno : function.end_lineno], margin)
    return prompt + "\n", completion.strip("\n")


def _moved_left(lines: list[str], margin: int) -> str:
    return "\n".join(line[margin:] if line[:margin].isspace() else line for line in lines)

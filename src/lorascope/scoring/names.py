"""Names of metrics, as a study gives them: built-in ones, ``regex:PATTERN`` and ``FILE.py:FUNCTION``."""

import difflib
import hashlib
import re
from pathlib import Path

TOKEN_ACCURACY = "token_accuracy"  # noqa: S105 - a metric
PYTHON_TESTS = "python_tests"
BUILT_IN = ("exact_match", TOKEN_ACCURACY, "contains", "rouge_l", "chrf", PYTHON_TESTS)
REGEX = "regex:"
FORMS = (*BUILT_IN, "regex:PATTERN", "FILE.py:FUNCTION")
_OWN = re.compile(r"(?P<file>.*\.py):(?P<function>[A-Za-z_]\w*)")


def split_names(text: str) -> tuple[str, ...]:
    """Split a list with commas; a pattern may hold commas and is the whole text."""
    if text.startswith(REGEX):
        return (text,)
    return tuple(part.strip() for part in text.split(",") if part.strip())


def find_problem(name: str) -> tuple[str, str] | None:
    """Return what is wrong with a name, and the remedy; None where nothing is."""
    if name in BUILT_IN or own_function(name):
        return None
    if name.startswith(REGEX):
        return _pattern_problem(name.removeprefix(REGEX))
    close = difflib.get_close_matches(name, BUILT_IN, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    return f"there is no metric {name!r}", f"{meant}the metrics are {', '.join(FORMS)}"


def _pattern_problem(pattern: str) -> tuple[str, str] | None:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        return f"metric regex:{pattern} is not a regular expression: {error}", "correct the pattern"
    if not pattern:
        return "metric regex: has no pattern", r"write one behind the colon, such as 'regex:#### (-?\d+)'"
    if groups > 1:
        remedy = "keep one pair of parentheses, and write (?:...) for the others"
        return f"metric regex:{pattern} has {groups} groups, and one can be compared", remedy
    return None


def own_function(name: str) -> tuple[Path, str] | None:
    """Return file and function of a metric of the user's own; None for others."""
    found = None if name.startswith(REGEX) else _OWN.fullmatch(name)
    return (Path(found["file"]).expanduser(), found["function"]) if found else None


def fingerprint(name: str, tests: str | None = None) -> str:
    """Return a hash of what a score depends on beside the metric's name; empty where that is nothing.

    Args:
        name: of the metric: a function of the user's own depends on its file.
        tests: of the row, on which ``python_tests`` depends.
    """
    if name == PYTHON_TESTS and tests is not None:
        return hashlib.sha256(tests.encode(errors="surrogatepass")).hexdigest()
    own = own_function(name)
    if own is None:
        return ""
    try:
        return hashlib.sha256(own[0].read_bytes()).hexdigest()
    except OSError:
        return "unreadable"

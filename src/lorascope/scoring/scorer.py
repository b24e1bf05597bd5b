"""Protocol of a metric of answers, and the checks that all of them share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lorascope.errors import InputError
from lorascope.scoring.names import BUILT_IN, PYTHON_TESTS

_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredRow:
    """A held-out row that answers are compared with."""

    row: int
    """Its number among the held-out rows, from 1."""
    prompt: str
    reference: str
    """The true answer."""
    tests: str | None = None
    """Python code that raises where an answer is wrong; None where the row has none."""


class Scorer(Protocol):
    """A metric of answers."""

    @property
    def name(self) -> str:
        """Return it as the study names it."""

    def score(self, row: ScoredRow, answer: str) -> float:
        """Return 0 for a wrong answer, 1 for a right one, or what lies between.

        Raises:
            ScoreError: the metric cannot judge this answer.
        """


class ScoreError(Exception):
    """A metric cannot judge an answer; the row counts as failed."""


class RowError(ScoreError):
    """A row lacks what a metric compares answers with."""


def checked(name: str, value: object) -> float:
    """Return a score from 0 to 1. Raises ScoreError for anything else."""
    if isinstance(value, bool):
        return float(value)
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        value = value.item()  # type: ignore[attr-defined]  # numpy's scalars have it
    if not isinstance(value, int | float):
        raise ScoreError(f"{name} returned {str(value)[:40]!r} of type {type(value).__name__}, not a number")
    if not math.isfinite(value) or not 0 <= value <= 1:
        raise ScoreError(f"{name} returned {value}, not a number from 0 to 1")
    return float(value)


def try_scorers(scorers: Sequence[Scorer], rows: Sequence[ScoredRow]) -> None:
    """Let each metric judge the true answer of the first row that has what it compares answers with.

    Raises:
        InputError: no row has that, or the metric cannot judge the answer.
    """
    if scorers and not rows:
        raise InputError(
            f"metric {scorers[0].name} compares answers, and no held-out row has a prompt with a completion",
            remedy="give rows with a prompt and a completion, or leave the metric out (token_accuracy needs none)",
        )
    for scorer in scorers:
        _try(scorer, rows)


def _try(scorer: Scorer, rows: Sequence[ScoredRow]) -> None:
    for last, row in ((row is rows[-1], row) for row in rows):
        try:
            score = scorer.score(row, row.reference)
        except ScoreError as error:
            if isinstance(error, RowError) and not last:
                continue
            raise InputError(
                f"metric {scorer.name} fails on the true answer of held-out row {row.row}: {error}",
                remedy="correct the metric, or give rows that it can judge",
            ) from error
        _check_known(scorer, row, score)
        return


def _check_known(scorer: Scorer, row: ScoredRow, score: float) -> None:
    """Raise InputError where a built-in metric does not tell a true answer from none."""
    if scorer.name not in BUILT_IN:
        return
    if score < 1 - _ROUNDING:
        raise InputError(
            f"metric {scorer.name} gives {score:.3g}, not 1, to the true answer of held-out row {row.row}",
            remedy="correct the row, or choose a metric that suits its answers",
        )
    if scorer.name == PYTHON_TESTS and scorer.score(row, "") == 1:
        raise InputError(
            f"metric {scorer.name}: an empty answer passes the tests of held-out row {row.row}",
            remedy="let the tests call what the answer defines: tests that define check(candidate) need a column "
            "entry_point, or a call of their own",
        )

"""Metrics that compare texts: without a library of their own, or with rouge-score and sacrebleu."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lorascope.errors import InputError
from lorascope.scoring.names import REGEX
from lorascope.scoring.scorer import RowError, ScoredRow, checked


@dataclass(frozen=True, kw_only=True, slots=True)
class TextScorer:
    """A metric of the true answer and the answer alone."""

    name: str
    compare: Callable[[str, str], float]
    """Takes the true answer and the answer."""

    def score(self, row: ScoredRow, answer: str) -> float:
        """Compare an answer with the true one; see ``Scorer``."""
        return checked(self.name, self.compare(row.reference, answer))


def exact_match(reference: str, answer: str) -> float:
    """Return 1 for the same words, with white space of any kind between them."""
    return float(answer.split() == reference.split())


def contains(reference: str, answer: str) -> float:
    """Return 1 where the true answer stands in the answer, with white space of any kind; RowError where it is empty."""
    if not reference.split():
        raise RowError("the true answer is empty")
    return float(" ".join(reference.split()) in " ".join(answer.split()))


def regex_scorer(name: str) -> TextScorer:
    """Make the metric ``regex:PATTERN``.

    With a group, 1 where its last match in the answer is that in the true answer; else 1 where the answer has a match.
    """
    pattern = re.compile(name.removeprefix(REGEX))

    def last(text: str) -> str | None:
        found = [match[pattern.groups] for match in pattern.finditer(text)]
        return found[-1] if found else None

    def compare(reference: str, answer: str) -> float:
        if not pattern.groups:
            return float(pattern.search(answer) is not None)
        wanted = last(reference)
        if wanted is None:
            raise RowError(f"{name} does not match the true answer")
        return float(last(answer) == wanted)

    return TextScorer(name=name, compare=compare)


def rouge_scorer() -> TextScorer:
    """Make ROUGE-L, the F-measure of the longest common subsequence. Raises InputError without rouge-score.

    Where the true answer has no words, 1 for an answer without any.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise missing("rouge_l", "rouge-score") from error
    scorer: Any = RougeScorer(["rougeL"], tokenizer=_Words())

    def compare(reference: str, answer: str) -> float:
        if not _Words().tokenize(reference):
            return float(not _Words().tokenize(answer))
        return float(scorer.score(reference, answer)["rougeL"].fmeasure)

    return TextScorer(name="rouge_l", compare=compare)


class _Words:
    """Words of every script; those of ASCII are the words of rouge-score's own tokenizer, which has no others."""

    def tokenize(self, text: str) -> list[str]:
        """Split a text into words of lower case."""
        return re.findall(r"[^\W_]+", text.lower())


def chrf_scorer() -> TextScorer:
    """Make chrF, the F-score of character n-grams, divided by 100. Raises InputError without sacrebleu.

    Where the true answer is empty, 1 for an empty answer.
    """
    try:
        from sacrebleu.metrics.chrf import CHRF  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise missing("chrf", "sacrebleu") from error
    scorer: Any = CHRF()

    def compare(reference: str, answer: str) -> float:
        if not reference.split():
            return float(not answer.split())
        return min(1.0, float(scorer.sentence_score(answer, [reference]).score) / 100)

    return TextScorer(name="chrf", compare=compare)


def missing(name: str, library: str) -> InputError:
    """Return the error of a metric whose library is not installed."""
    return InputError(
        f"metric {name} needs {library}, which is not installed", remedy="pip install 'lorascope[metrics]'"
    )

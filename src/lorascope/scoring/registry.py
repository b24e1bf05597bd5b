"""The metrics of answers that a study names."""

from collections.abc import Callable, Mapping, Sequence

from lorascope.scoring.names import PYTHON_TESTS, REGEX, TOKEN_ACCURACY
from lorascope.scoring.own import load_own
from lorascope.scoring.python_tests import PythonTests
from lorascope.scoring.scorer import Scorer
from lorascope.scoring.text import TextScorer, chrf_scorer, contains, exact_match, regex_scorer, rouge_scorer

_MADE: Mapping[str, Callable[[], Scorer]] = {
    "exact_match": lambda: TextScorer(name="exact_match", compare=exact_match),
    "contains": lambda: TextScorer(name="contains", compare=contains),
    "rouge_l": rouge_scorer,
    "chrf": chrf_scorer,
    PYTHON_TESTS: PythonTests,
}


def load_scorers(names: Sequence[str]) -> tuple[Scorer, ...]:
    """Make the metrics of these names, which are valid; token accuracy, which needs no answers, is left out.

    Raises:
        InputError: a library is missing, or a file of the user's own cannot be used.
    """
    return tuple(_load(name) for name in names if name != TOKEN_ACCURACY)


def _load(name: str) -> Scorer:
    if name in _MADE:
        return _MADE[name]()
    return regex_scorer(name) if name.startswith(REGEX) else load_own(name)

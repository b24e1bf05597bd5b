"""Scores of ranks as values of rows: what metrics made of answers, and correct tokens.

Shapes: S seeds that all ranks have, N rows that all of them have.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lorascope.analysis.estimates.paired import SeedRows
from lorascope.analysis.estimates.ranks import RankChoice
from lorascope.analysis.metrics.token_accuracy import base_accuracy, common_accuracy
from lorascope.analysis.study_data import StudyData
from lorascope.records import BASE_MODEL, HARNESS, ScoreRecord
from lorascope.scoring.names import PYTHON_TESTS, TOKEN_ACCURACY


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricValues:
    """A metric's values of all ranks, on the same rows and seeds."""

    name: str
    ranks: Mapping[int, SeedRows]
    """Scores in place of nats, ranks ascending."""
    base: SeedRows | None
    """The same of the base model."""
    failed: int
    """Rows that the metric could not judge for every seed and rank."""


def metric_values(data: StudyData, choices: Mapping[int, RankChoice]) -> Iterator[MetricValues]:
    """Yield the values of all that has some: correct tokens, then metrics and benchmarks as the study orders them."""
    accuracy = common_accuracy(data, choices)
    if accuracy:
        rows = len(next(iter(accuracy.values())).target_tokens)
        yield MetricValues(name=TOKEN_ACCURACY, ranks=accuracy, base=base_accuracy(data, rows), failed=0)
    order = sorted(data.benchmarks, key=lambda one: data.spec.lm_eval.index(one.given))
    for name in dict.fromkeys((*data.spec.scored_metrics, *(one.name for one in order))):
        found = _scored(data, choices, name)
        if found is not None:
            yield found


def _scored(data: StudyData, choices: Mapping[int, RankChoice], name: str) -> MetricValues | None:
    """Return the scores of ranks at their best settings; None where no row has scores of all."""
    scores: dict[str, dict[int, float | None]] = {}
    for one in _of_one_version(data, name):
        scores.setdefault(one.trial_id, {})[one.place] = one.score
    trials = {rank: {t.seed: t.trial_id for t in choice.trials} for rank, choice in choices.items()}
    seeds = [seed for seed in data.seeds if all(own.get(seed) in scores for own in trials.values())]
    names = [own[seed] for own in trials.values() for seed in seeds]
    everywhere = set.intersection(*(set(scores[trial]) for trial in names)) if names else set()
    places = [place for place in sorted(everywhere) if all(scores[trial][place] is not None for trial in names)]
    if not places:
        return None
    base = scores.get(BASE_MODEL, {})
    return MetricValues(
        name=name,
        ranks={rank: _rows([scores[own[seed]] for seed in seeds], places) for rank, own in trials.items()},
        base=_rows([base], places) if all(base.get(place) is not None for place in places) else None,
        failed=len(everywhere) - len(places),
    )


def _of_one_version(data: StudyData, name: str) -> list[ScoreRecord]:
    """Return the scores of a metric, those of its newest version alone; rows have tests of their own."""
    wanted = (name, 0 if name.startswith(HARNESS) else data.spec.max_new_tokens)
    found = [one for one in data.scores if (one.metric, one.max_new_tokens) == wanted]
    first = sorted(found, key=lambda one: (one.trial_id != BASE_MODEL, one.place), reverse=True)
    newest = {one.place if name == PYTHON_TESTS else 0: one.fingerprint for one in first}  # scored again in this order
    return [one for one in found if one.fingerprint == newest[one.place if name == PYTHON_TESTS else 0]]


def _rows(seeds: Sequence[Mapping[int, float | None]], places: Sequence[int]) -> SeedRows:
    values = np.array([[own[place] for place in places] for own in seeds], dtype=np.float64)
    return SeedRows(nats=values, target_tokens=np.ones(len(places)))

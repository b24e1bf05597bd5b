"""Scores of greedy answers to held-out prompts, of the base and of every seed of each rank."""

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lorascope.message import Message
from lorascope.records import Arm, SampleAnswer, ScoreRecord
from lorascope.run.context import RunContext
from lorascope.run.samples import Answering
from lorascope.scoring.names import fingerprint
from lorascope.scoring.scorer import ScoredRow, ScoreError, Scorer
from lorascope.search.allocation import METRICS_SHARE
from lorascope.search.analyses import finished_scores, greedy_answers
from lorascope.search.work import sample_work
from lorascope.text.say import say

_GREEDY = 0.0


def score_answers(run: RunContext, pending: Sequence[tuple[int, tuple[str, ...]]], arms: Mapping[str, Arm]) -> None:
    """Store the scores that answers to prompts, by their places, lack; fewer rows where the time is short.

    Args:
        run: the study; its adapters are attached afterwards.
        pending: places of prompts, each with the trials whose answers lack a score, or ``BASE_MODEL``.
        arms: of each trial.
    """
    scoring, slowest = _Scoring(run, Answering(run, _GREEDY)), None
    there = greedy_answers(run.study.spec, run.store.read(SampleAnswer))
    answered = {one for one in pending if all((one[0], trial_id) in there for trial_id in one[1])}
    start = time.perf_counter()
    for number, (place, trial_ids) in enumerate(pending, 1):
        run.tracker.phase(f"scoring answers to held-out prompts: {number} of {len(pending)}")
        work = sample_work(run.study.spec, run.progress.sizes, map(arms.get, trial_ids))
        seconds = run.progress.seconds("metrics", work) if slowest is None else slowest
        if (place, trial_ids) not in answered and not allows_share(run, seconds, time.perf_counter() - start):
            scored = len(run.study.scored_rows) - len(pending) + number - 1
            run.leave_out("metrics", f"scores of held-out rows beyond {scored} of {len(run.study.scored_rows)}")
            run.progress.expect({"metrics": 0.0})
            break
        began = time.perf_counter()
        run.store.put_all(scoring.scores(place, trial_ids))
        slowest = max(slowest or 0.0, time.perf_counter() - began)
        run.progress.lap("metrics", work)
    for metric, count in scoring.failed.items():
        run.tracker.note(f"answers that {metric} could not judge: {count}; the first: {scoring.first_errors[metric]}")


def allows_share(run: RunContext, seconds: float, spent: float) -> bool:
    """Return True where so many seconds more keep to the share of a time budget for scores or for benchmarks."""
    return run.clock.allows(seconds) and spent + seconds <= METRICS_SHARE * run.clock.seconds


@dataclass(frozen=True)
class _Scoring:
    """Answers and scores prompts; counts what a metric cannot judge."""

    run: RunContext
    answering: Answering
    failed: Counter[str] = field(default_factory=Counter)
    """Answers, by metric."""
    first_errors: dict[str, str] = field(default_factory=dict)
    """By metric."""

    def scores(self, place: int, trial_ids: Sequence[str]) -> Iterator[ScoreRecord]:
        """Yield the scores of trials that are not stored yet."""
        run = self.run
        answers = self._answers(place, trial_ids)
        row = run.study.scored_rows[place]
        done = finished_scores(run.study.spec, run.store.read(ScoreRecord, place=place), {place: row.tests})
        for scorer in run.study.scorers:
            for trial_id in trial_ids:
                if (place, trial_id, scorer.name) not in done:
                    yield self._score(scorer, row, answers[trial_id])

    def _answers(self, place: int, trial_ids: Collection[str]) -> dict[str, SampleAnswer]:
        """Return the answer of each trial; those that are not stored are made together."""
        run, longest = self.run, self.run.study.spec.max_new_tokens
        stored = run.store.read(SampleAnswer, place=place, temperature=_GREEDY, max_new_tokens=longest)
        found = {one.trial_id: one for one in stored}
        missing = [trial_id for trial_id in trial_ids if trial_id not in found]
        if missing:
            prompt = next(one for one in run.study.prompts if one.shown.place == place)
            made = self.answering.answers(prompt, missing)
            run.store.put_all(made)
            found |= {one.trial_id: one for one in made}
        return found

    def _score(self, scorer: Scorer, row: ScoredRow, answer: SampleAnswer) -> ScoreRecord:
        score, error = None, answer.error
        if error is None:
            try:
                score = scorer.score(row, answer.text)
            except ScoreError as problem:
                error = Message("metric.row_failed", row=row.row, problem=str(problem)[:300])
        if error is not None:
            self.failed[scorer.name] += 1
            self.first_errors.setdefault(scorer.name, say(error))
        return ScoreRecord(
            trial_id=answer.trial_id,
            metric=scorer.name,
            place=answer.place,
            score=score,
            error=error,
            max_new_tokens=answer.max_new_tokens,
            fingerprint=fingerprint(scorer.name, row.tests),
        )

"""Analyses of trained adapters that a study still has to make: a pure function of the study and its records."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from lorascope.records import (
    BASE_MODEL,
    Arm,
    ForgettingRecord,
    HarnessTask,
    SampleAnswer,
    SamplePrompt,
    ScoreRecord,
    SpectrumRecord,
    TruncationRecord,
)
from lorascope.scoring.names import PYTHON_TESTS, fingerprint
from lorascope.spec.fields.answer import NO_TEXT
from lorascope.spec.schema import StudySpec

AnalysisRecord = SpectrumRecord | ForgettingRecord | TruncationRecord | SampleAnswer | SamplePrompt | ScoreRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class PendingAnalyses:
    """Analyses that are not stored yet; falsy where all are."""

    spectra: tuple[str, ...]
    """Trials."""
    forgetting: tuple[str, ...]
    """Trials, the base model first."""
    truncations: tuple[tuple[str, int], ...]
    """Trials of the largest rank, one for each set of target modules, with a rank to truncate the adapter to."""
    samples: tuple[tuple[int, tuple[str, ...]], ...]
    """Places of held-out prompts, each with the trials that have not answered, the base model first."""
    scores: tuple[tuple[int, tuple[str, ...]], ...]
    """The same of trials whose answers lack a score."""
    benchmarks: tuple[tuple[HarnessTask, tuple[str, ...]], ...]
    """Tasks, each with the trials that have not answered its documents, the base model first."""

    def __bool__(self) -> bool:
        return any((self.spectra, self.forgetting, self.truncations, self.samples, self.scores, self.benchmarks))


def pending_analyses(
    spec: StudySpec,
    best: Mapping[Arm, str],
    records: Iterable[AnalysisRecord],
    *,
    scored: Collection[str] = (),
    n_eval: int = 0,
    text_hash: str | None = None,
    left_out: Collection[str] = (),
    tests: Mapping[int, str | None] | None = None,
    harness: Iterable[HarnessTask] = (),
) -> PendingAnalyses:
    """Compare what is stored with what should be.

    Args:
        spec: the study.
        best: the trial that stands for each arm.
        records: those that are stored.
        scored: trials whose answers metrics compare, the base model left out.
        n_eval: held-out rows.
        text_hash: of the forgetting text: losses on another text do not count. None: losses on any one text count, as
            the text need not be there to say that all is done.
        left_out: what a time budget did not suffice for: ``spectra``, ``generic_text``, ``truncation``, ``samples``
            or ``metrics``: answers that are stored are scored all the same; or ``lm_eval``.
        tests: of the held-out rows, by the prompt's place; None: scores by any tests count.
        harness: tasks of the harness that the study names.
    """
    stored = list(records)
    with_spectra = {record.trial_id for record in stored if isinstance(record, SpectrumRecord)}
    hashes = {record.trial_id: record.text_hash for record in stored if isinstance(record, ForgettingRecord)}
    wanted = (BASE_MODEL, *best.values()) if best and _wants_text(spec, left_out) else ()
    current = text_hash or hashes.get(BASE_MODEL)
    done = {(record.trial_id, record.rank) for record in stored if isinstance(record, TruncationRecord)}
    return PendingAnalyses(
        spectra=tuple(name for name in best.values() if name not in with_spectra and "spectra" not in left_out),
        forgetting=tuple(trial_id for trial_id in wanted if trial_id not in hashes or hashes[trial_id] != current),
        truncations=tuple(cut for cut in _truncations(best) if cut not in done and "truncation" not in left_out)
        if spec.truncation
        else (),
        samples=() if "samples" in left_out else tuple(_unanswered(spec, best, stored, n_eval)),
        scores=tuple(_unscored(spec, scored, stored, n_eval, tests, only_answered="metrics" in left_out)),
        benchmarks=() if "lm_eval" in left_out else tuple(_unanswered_tasks(scored, stored, harness)),
    )


def _wants_text(spec: StudySpec, left_out: Collection[str]) -> bool:
    return spec.forgetting_text != NO_TEXT and "generic_text" not in left_out


def _truncations(best: Mapping[Arm, str]) -> Iterator[tuple[str, int]]:
    for targets in dict.fromkeys(targets for targets, _ in best):
        ranks = [rank for own, rank in best if own == targets]
        for rank in truncation_ranks(max(ranks), ranks):
            yield best[targets, max(ranks)], rank


def _unanswered(
    spec: StudySpec, best: Mapping[Arm, str], records: Iterable[AnalysisRecord], n_eval: int
) -> Iterator[tuple[int, tuple[str, ...]]]:
    answered = {
        (one.place, one.trial_id)
        for one in records
        if isinstance(one, SampleAnswer)
        and (one.max_new_tokens, one.temperature) == (spec.max_new_tokens, spec.sample_temperature)
    }
    wanted = (BASE_MODEL, *best.values()) if best else ()
    for place in range(1, min(spec.samples, n_eval) + 1):
        missing = tuple(trial_id for trial_id in wanted if (place, trial_id) not in answered)
        if missing:
            yield place, missing


def _unscored(
    spec: StudySpec,
    scored: Collection[str],
    records: Iterable[AnalysisRecord],
    n_eval: int,
    tests: Mapping[int, str | None] | None,
    *,
    only_answered: bool,
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the rows that lack scores; rows without a completion of their own have none."""
    if not spec.scored_metrics or not scored:
        return
    stored = list(records)
    continued = {one.place for one in stored if isinstance(one, SamplePrompt) and one.continued}
    done = finished_scores(spec, (one for one in stored if isinstance(one, ScoreRecord)), tests)
    answered = greedy_answers(spec, stored) if only_answered else None
    for place in range(1, n_eval + 1):
        missing = tuple(
            trial_id
            for trial_id in (BASE_MODEL, *scored)
            if (answered is None or (place, trial_id) in answered)
            and any((place, trial_id, metric) not in done for metric in spec.scored_metrics)
        )
        if missing and place not in continued:
            yield place, missing


def _unanswered_tasks(
    scored: Collection[str], records: Iterable[AnalysisRecord], harness: Iterable[HarnessTask]
) -> Iterator[tuple[HarnessTask, tuple[str, ...]]]:
    """Yield the tasks, each once, that trials have not answered; all documents of a trial are stored together."""
    done = {(one.metric, one.trial_id, one.fingerprint) for one in records if isinstance(one, ScoreRecord)}
    for task in {task.name: task for task in harness}.values():
        wanted = (BASE_MODEL, *scored) if scored else ()
        missing = tuple(trial_id for trial_id in wanted if (task.name, trial_id, task.fingerprint) not in done)
        if missing:
            yield task, missing


def greedy_answers(spec: StudySpec, records: Iterable[AnalysisRecord]) -> set[tuple[int, str]]:
    """Return place and trial of the answers that are stored and that metrics compare."""
    return {
        (one.place, one.trial_id)
        for one in records
        if isinstance(one, SampleAnswer) and (one.max_new_tokens, one.temperature) == (spec.max_new_tokens, 0.0)
    }


def finished_scores(
    spec: StudySpec, records: Iterable[ScoreRecord], tests: Mapping[int, str | None] | None = None
) -> set[tuple[int, str, str]]:
    """Return place, trial and metric of the scores that are those of the study's answers and metrics as they are.

    Args:
        spec: the study.
        records: scores that are stored.
        tests: of the held-out rows, by the prompt's place; None: scores by any tests count.
    """
    prints = {name: fingerprint(name) for name in spec.scored_metrics}

    def is_current(one: ScoreRecord) -> bool:
        if one.metric == PYTHON_TESTS:
            return tests is None or one.fingerprint == fingerprint(PYTHON_TESTS, tests.get(one.place))
        return one.fingerprint == prints.get(one.metric)

    return {
        (one.place, one.trial_id, one.metric)
        for one in records
        if one.max_new_tokens == spec.max_new_tokens and is_current(one)
    }


def truncation_ranks(top: int, trained: Iterable[int]) -> tuple[int, ...]:
    """Return the powers of two and the trained ranks below the top one, ascending."""
    powers = (2**power for power in range((top - 1).bit_length()))
    return tuple(sorted({*powers, *trained} - {top}))

"""Token accuracy: the share of held-out target tokens that are the likeliest one, from the pass that gives the loss."""

from collections.abc import Mapping, Sequence
from itertools import chain

from lorascope.analysis.estimates.looks import seed_rows
from lorascope.analysis.estimates.paired import SeedRows
from lorascope.analysis.estimates.ranks import RankChoice, common_seeds
from lorascope.analysis.metrics.estimates import estimate_levels
from lorascope.analysis.study_data import StudyData
from lorascope.analysis.summary import RankSection
from lorascope.records import BASE_MODEL, EvalRecord, FurtherEvalRecord
from lorascope.search.best import last_finite

TokenCounts = tuple[Sequence[float], Sequence[int]]
"""Correct tokens and target tokens, row by row."""


def accuracy_rows(data: StudyData, choices: Mapping[int, RankChoice]) -> dict[int, SeedRows]:
    """Return the correct tokens of each rank's seeds on the rows of its loss, in place of nats; none where not counted.

    Args:
        data: the study.
        choices: each rank at its best setting.
    """
    found = {}
    for rank, choice in choices.items():
        last = [last_finite(data.evaluations[trial.trial_id]) for trial in choice.trials]
        further = [data.further.get(trial.trial_id, ()) for trial in choice.trials]
        counts = [_counts(one, more) for one, more in zip(last, further, strict=True)]
        rows = data.looks[-1].rows if data.looks else None
        whole = [count for count in counts if count is not None]
        if whole and len(whole) == len(counts):
            there = min(len(correct) for correct, _ in whole)  # a rank that settled early has no further rows
            found[rank] = seed_rows(whole, there if rows is None else min(rows, there))
    return found


def common_accuracy(data: StudyData, choices: Mapping[int, RankChoice]) -> dict[int, SeedRows]:
    """Return the same over the rows and seeds that all ranks have; empty where some rank has none."""
    found, seeds = accuracy_rows(data, choices), common_seeds(choices) if choices else ()
    if not seeds or len(found) < len(choices):
        return {}
    rows = min(len(one.target_tokens) for one in found.values())
    return {
        rank: SeedRows(
            nats=one.nats[[choices[rank].seeds.index(seed) for seed in seeds], :rows],
            target_tokens=one.target_tokens[:rows],
        )
        for rank, one in found.items()
    }


def with_token_accuracy(
    data: StudyData, ranks: Sequence[RankSection], choices: Mapping[int, RankChoice]
) -> tuple[RankSection, ...]:
    """Add the token accuracy of ranks; ranks with the same seeds share what the seeds move."""
    found = estimate_levels(accuracy_rows(data, choices))

    def added(part: RankSection) -> RankSection:
        if part.rank not in found:
            return part
        level = found[part.rank]
        return part.model_copy(update={"token_accuracy": level.value, "token_accuracy_ci95": level.interval})

    return tuple(map(added, ranks))


def base_accuracy(data: StudyData, rows: int) -> SeedRows | None:
    """Return the same of the base model on the first rows with targets; None where it was not counted on all."""
    evaluations = chain(*data.evaluations.values())
    before = next((one for one in evaluations if one.step == 0 and one.example_correct_tokens is not None), None)
    counts = _counts(before, data.further.get(BASE_MODEL, ()))
    found = None if counts is None else seed_rows([counts])
    if found is None or len(found.target_tokens) < rows:
        return None
    return SeedRows(nats=found.nats[:, :rows], target_tokens=found.target_tokens[:rows])


def _counts(evaluation: EvalRecord | None, further: Sequence[FurtherEvalRecord]) -> TokenCounts | None:
    """Join an evaluation with those on further rows; None where one did not count."""
    records: list[EvalRecord | FurtherEvalRecord] = [] if evaluation is None else [evaluation, *further]
    correct = [one.example_correct_tokens for one in records if one.example_correct_tokens is not None]
    if not records or len(correct) < len(records):
        return None
    return tuple(chain(*correct)), tuple(chain(*(one.example_target_tokens for one in records)))

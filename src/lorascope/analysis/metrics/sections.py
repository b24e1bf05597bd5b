"""Sections of the summary about metrics per held-out row."""

from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np

from lorascope.analysis.estimates.losses import Estimate
from lorascope.analysis.estimates.paired import SeedRows
from lorascope.analysis.estimates.ranks import RankChoice, excess_over_best
from lorascope.analysis.metrics.estimates import (
    Deficits,
    Level,
    deficits,
    estimate_levels,
    rows_to_show,
    shown_below,
    within,
)
from lorascope.analysis.metrics.schema import MetricRankSection, MetricSection, MetricVerdict
from lorascope.analysis.metrics.values import MetricValues, metric_values
from lorascope.analysis.study_data import StudyData
from lorascope.analysis.verdict.decide import LEAST
from lorascope.message import Message
from lorascope.records import HARNESS


def metric_sections(data: StudyData, choices: Mapping[int, RankChoice]) -> tuple[MetricSection, ...]:
    """Summarise every metric that has values of all ranks."""
    return tuple(_section(values) for values in metric_values(data, choices))


def _section(values: MetricValues) -> MetricSection:
    rows, levels = values.ranks, estimate_levels(values.ranks)
    best = max(rows, key=lambda rank: (levels[rank].value, -rank))
    some = rows[best]
    n_rows = len(some.target_tokens)
    enough = n_rows >= LEAST
    below = deficits(rows) if enough and len(rows) > 1 else {}
    shown = shown_below(best, below)
    intervals = excess_over_best(best, rows, below) if below else {}
    ranks = tuple(_rank(rank, best, levels, intervals, shown=shown.get(rank, False)) for rank in rows)
    needed = None if any(shown.values()) else _rows_needed(ranks, best, below, n_rows)
    verdict: MetricVerdict = "one_rank" if len(rows) == 1 else "differs" if any(shown.values()) else "not_shown"
    section = MetricSection(
        name=values.name,
        verdict=verdict if enough else "too_few",
        text=(),
        rows=n_rows,
        failed_rows=values.failed,
        seeds=len(some.nats),
        base_score=values.base.loss if values.base is not None else None,
        best=best,
        ranks=ranks,
        noise_floor=_noise_floor(rows),
        rows_to_show=needed,
    )
    return section.model_copy(update={"text": tuple(_sentences(section))})


def _rank(
    rank: int, best: int, levels: Mapping[int, Level], intervals: Mapping[int, Estimate], *, shown: bool
) -> MetricRankSection:
    found = intervals.get(rank) if rank != best else None
    return MetricRankSection(
        rank=rank,
        score=levels[rank].value,
        score_ci95=levels[rank].interval,
        below_best=levels[best].value - levels[rank].value,
        below_best_ci95=within(found.low, found.high, least=-1.0) if found else None,
        shown=shown,
    )


def _rows_needed(ranks: tuple[MetricRankSection, ...], best: int, below: Deficits, rows: int) -> int | None:
    lowest = max(ranks, key=lambda part: part.below_best)
    if not below or lowest.rank == best:
        return None
    return rows_to_show(lowest.below_best, below[lowest.rank, best], rows, len(below) // 2)


def _noise_floor(ranks: Mapping[int, SeedRows]) -> float | None:
    pairs = [a - b for rows in ranks.values() for a, b in combinations(rows.losses.tolist(), 2)]
    return float(np.sqrt(np.mean(np.square(pairs)))) if pairs else None


def _sentences(section: MetricSection) -> Iterator[Message]:
    """Say who scores most, how far each other rank is below, and what that shows."""
    best = next(part for part in section.ranks if part.rank == section.best)
    alone, highest = "metric.alone", "metric.best"
    if section.name.startswith(HARNESS):
        alone, highest = "metric.alone_documents", "metric.best_documents"
    most = alone if section.verdict == "one_rank" else highest
    yield Message(most, metric=section.name, rank=best.rank, score=best.score, rows=section.rows)
    if section.base_score is not None:
        yield Message("metric.base", score=section.base_score)
    if section.verdict == "too_few":
        yield Message("metric.few", least=LEAST)
    elif section.verdict != "one_rank":
        yield from (_about(part) for part in section.ranks if part.rank != section.best)
        if section.seeds == 1:
            yield Message("metric.one_seed")
    if section.rows_to_show is not None:
        yield Message("metric.rows_to_show", rows=section.rows_to_show)
    if section.noise_floor is not None:
        yield Message("metric.noise_floor", points=section.noise_floor)
    if section.failed_rows:
        yield Message("metric.failed", count=section.failed_rows)


def _about(part: MetricRankSection) -> Message:
    if part.below_best_ci95 is None:
        return Message("metric.same_rows", rank=part.rank, points=part.below_best)
    code = "metric.shown" if part.shown else "metric.not_shown"
    return Message(code, rank=part.rank, fewer=(part.below_best, *part.below_best_ci95))

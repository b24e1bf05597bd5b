"""Table of metrics per held-out row: the base and the ranks, a metric two columns."""

from collections.abc import Callable, Sequence
from itertools import chain

from lorascope.analysis.metrics.schema import MetricRankSection, MetricSection
from lorascope.records import HARNESS
from lorascope.scoring.names import TOKEN_ACCURACY
from lorascope.text.language import tr
from lorascope.text.metrics import metric_label
from lorascope.text.numbers import points
from lorascope.text.tables.table import NONE, Table, drop_empty, interval_cell, make_table


def metric_title(section: MetricSection) -> str:
    """Name a metric: token accuracy in the language in use, others as the study does."""
    return metric_label(TOKEN_ACCURACY) if section.name == TOKEN_ACCURACY else section.name


def metrics_title(sections: Sequence[MetricSection]) -> str:
    """Name the part of a page that shows metrics."""
    if any(section.name.startswith(HARNESS) for section in sections):
        return tr("Metrics on held-out rows and benchmarks")
    return tr("Metrics on held-out rows")


def metric_table(sections: Sequence[MetricSection]) -> Table:
    """Show what the base and every rank score, in percent, and how far each rank is below the highest."""
    ranks = sorted({part.rank for section in sections for part in section.ranks})
    rows: list[int | None] = [None, *ranks]
    columns = chain.from_iterable(_columns(section) for section in sections)
    note = tr(
        "Scores in percent of the held-out rows or documents, mean over seeds; differences in points, paired by row "
        "and seed; 95% intervals in brackets."
    )
    table = make_table(
        rows, rows, (tr("rank"), lambda rank: tr("base") if rank is None else str(rank)), *columns, note=note
    )
    return drop_empty(table)


def _columns(section: MetricSection) -> tuple[tuple[str, Callable[[int | None], str]], ...]:
    parts = {part.rank: part for part in section.ranks}

    def score(rank: int | None) -> str:
        if rank is None:
            return NONE if section.base_score is None else points(section.base_score)
        part = parts.get(rank)
        return NONE if part is None else interval_cell(part.score, part.score_ci95, points)

    def difference(rank: int | None) -> str:
        part = None if rank is None else parts.get(rank)
        return NONE if part is None or len(parts) < 2 else _below(part, section.best)

    title = metric_title(section)
    return (title, score), (tr("{metric}: vs highest", metric=title), difference)


def _below(part: MetricRankSection, best: int) -> str:
    if part.rank == best:
        return tr("highest")
    interval = part.below_best_ci95
    above = None if interval is None else (-interval[1], -interval[0])
    cell = interval_cell(-part.below_best, above, lambda value: f"{100 * value:+z.1f}")
    return tr("{difference}, shown", difference=cell) if part.shown else cell

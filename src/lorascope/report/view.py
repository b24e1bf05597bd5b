"""A summary as the strings a page shows."""

from collections.abc import Sequence
from dataclasses import dataclass

from lorascope.analysis.estimates.paired import LEVEL
from lorascope.analysis.summary import RankSection, StudySummary, TrialSection
from lorascope.charts.colors import rank_colors
from lorascope.text.language import tr
from lorascope.text.numbers import chance, format_count, format_seconds
from lorascope.units import format_bytes

NONE = "–"


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A header and rows of equal length; the first cell of a row names it."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    colors: tuple[str, ...]
    """Colour of each row's rank."""
    style: str = ""
    """How a page sets it: ``ranks`` puts intervals on a line of their own, ``trials`` has words in its sixth column."""


def rank_table(summary: StudySummary) -> Table:
    """Show every rank; a column that has no value for any rank is left out."""
    header = (
        tr("rank"),
        tr("held-out loss (95% interval)"),
        tr("above the best (95% interval)"),
        tr("seeds"),
        tr("training loss"),
        tr("learning rate"),
        tr("parameters"),
        tr("adapter"),
        tr("step alone"),
        tr("run alone"),
        tr("tokens/s"),
        tr("peak memory"),
    )
    rows = [_rank_row(part) for part in summary.ranks]
    return drop_empty(header, rows, row_colors(summary, [part.rank for part in summary.ranks]), style="ranks")


def row_colors(summary: StudySummary, ranks: Sequence[int]) -> tuple[str, ...]:
    """Give each row the colour of its rank."""
    colors = rank_colors([part.rank for part in summary.ranks])
    return tuple(colors[rank] for rank in ranks)


def drop_empty(
    header: Sequence[str], rows: Sequence[Sequence[str]], colors: tuple[str, ...], *, style: str = ""
) -> Table:
    """Leave out the columns behind the second that no row has a value for."""
    kept = [
        column for column in range(len(header)) if column <= 1 or any(row[column] not in (NONE, "") for row in rows)
    ]
    return Table(
        header=tuple(header[column] for column in kept),
        rows=tuple(tuple(row[column] for column in kept) for row in rows),
        colors=colors,
        style=style,
    )


def claims_table(summary: StudySummary) -> Table:
    """Show what the tests show of every rank; no rows where nothing is compared."""
    claims = summary.verdict.claims
    return Table(
        header=(
            tr("rank"),
            tr("within the tolerance of every other"),
            tr("beyond the tolerance of another"),
            tr("above another at all"),
        ),
        rows=tuple(
            (str(part.rank), *(_shown(p) for p in (part.adequate_p, part.inadequate_p, part.worse_p)))
            for part in claims
        ),
        colors=row_colors(summary, [part.rank for part in claims]),
    )


def trial_table(summary: StudySummary) -> Table:
    """Show every trial and how it ended."""
    header = (
        tr("trial"),
        tr("rank"),
        tr("alpha"),
        tr("learning rate"),
        tr("seed"),
        tr("outcome"),
        tr("steps"),
        tr("training loss"),
        tr("held-out loss"),
    )
    return Table(
        header=header,
        rows=tuple(_trial_row(trial) for trial in summary.trials),
        colors=row_colors(summary, [trial.rank for trial in summary.trials]),
        style="trials",
    )


def _rank_row(part: RankSection) -> tuple[str, ...]:
    best = part.excess_loss == 0 and part.excess_loss_ci95 == (0.0, 0.0)
    return (
        str(part.rank),
        show_interval(part.eval_loss, part.eval_loss_ci95),
        tr("lowest") if best else show_interval(part.excess_loss, part.excess_loss_ci95),
        str(part.seeds),
        show_loss(part.train_loss),
        f"{part.best_learning_rate:g}" if part.best_learning_rate is not None else NONE,
        _count(part.trainable_parameters) or NONE,
        format_bytes(part.adapter_bytes) if part.adapter_bytes is not None else NONE,
        format_seconds(part.step_seconds) if part.step_seconds is not None else NONE,
        format_seconds(part.runtime_seconds) if part.runtime_seconds is not None else NONE,
        f"{part.tokens_per_second:.0f}" if part.tokens_per_second is not None else NONE,
        format_bytes(part.peak_memory_bytes) if part.peak_memory_bytes is not None else NONE,
    )


def _trial_row(trial: TrialSection) -> tuple[str, ...]:
    outcome = state_name(trial.outcome)
    return (
        trial.trial_id,
        str(trial.rank),
        f"{trial.lora_alpha:g}",
        f"{trial.learning_rate:g}",
        str(trial.seed),
        f"{outcome}: {trial.message}" if trial.message else outcome,
        str(trial.steps),
        show_loss(trial.train_loss),
        show_loss(trial.eval_loss),
    )


def state_name(outcome: str) -> str:
    """Name how a trial stands or ended."""
    names = {
        "not_started": tr("not started"),
        "running": tr("not finished"),
        "finished": tr("finished"),
        "stopped": tr("stopped early"),
        "diverged": tr("diverged"),
        "oom": tr("out of memory"),
        "failed": tr("failed"),
    }
    return names[outcome]


def show_interval(value: float | None, interval: tuple[float, float] | None) -> str:
    """Write a number and its interval; the number alone where there is none."""
    if value is None or interval is None:
        return show_loss(value)
    low, high = (f"{end:z.4f}" for end in interval)
    return tr("{value} ({low} to {high})", value=f"{value:z.4f}", low=low, high=high)


def _shown(p: float) -> str:
    return tr("shown ({p})", p=chance(p)) if p <= LEVEL else tr("not shown ({p})", p=chance(p))


def show_loss(value: float | None) -> str:
    """Write a loss or a difference of losses."""
    return NONE if value is None else f"{value:z.4f}"


def _count(value: int | None) -> str | None:
    return None if value is None else format_count(value)

"""Tables of ranks: their losses and costs, and what the tests show of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from lorascope.analysis.estimates.paired import LEVEL
from lorascope.analysis.section import Interval
from lorascope.analysis.summary import RankSection, SetSummary, StudySummary
from lorascope.metrics import ROW_METRICS
from lorascope.text.language import tr
from lorascope.text.metrics import metric_label
from lorascope.text.numbers import chance, decimals, difference, format_count, format_seconds
from lorascope.text.tables.table import NONE, Table, drop_empty, loss_cell, make_table, optional
from lorascope.units import format_bytes


@dataclass(frozen=True, slots=True)
class RankColumn:
    """A column about ranks."""

    heading: str
    cell: Callable[[RankSection], str]
    interval: Callable[[RankSection], Interval | None] = lambda _: None
    """Of the cell's loss, for what shows it."""

    def with_interval(self, part: RankSection) -> str:
        """Write the cell and its interval."""
        interval = self.interval(part)
        if interval is None:
            return self.cell(part)
        low, high = map(loss_cell, interval)
        return tr("{value} ({low} to {high})", value=self.cell(part), low=low, high=high)


REPORT_COLUMNS = (
    "rank", *ROW_METRICS, "bits_per_byte", "excess_loss", "seeds", "train_loss", "lora_alpha", "best_learning_rate",
    "trainable_parameters", "target_tokens_per_parameter", "saved_rank", "adapter_bytes", "step_seconds",
    "runtime_seconds", "tokens_per_second", "peak_memory_bytes",
)  # fmt: skip


def rank_columns() -> Mapping[str, RankColumn]:
    """Return every column that a table of ranks may have, by the field of summary.json it shows."""
    return {
        "rank": RankColumn(tr("rank"), lambda part: str(part.rank)),
        "scale": RankColumn(tr("scale"), lambda part: optional(part.scale, "{:.4g}".format)),
        **{name: _row_metric(name) for name in ROW_METRICS},
        "bits_per_byte": RankColumn(tr("bits/byte"), lambda part: loss_cell(part.bits_per_byte)),
        "excess_loss": RankColumn(
            tr("above the best (95% interval)"),
            lambda part: tr("lowest") if _best(part) else loss_cell(part.excess_loss),
            lambda part: None if _best(part) else part.excess_loss_ci95,
        ),
        "seeds": RankColumn(tr("seeds"), lambda part: str(part.seeds)),
        "train_loss": RankColumn(tr("training loss"), lambda part: loss_cell(part.train_loss)),
        "lora_alpha": RankColumn(
            tr("alpha"), lambda part: optional(part.lora_alpha if len(part.lora_alphas) > 1 else None, "{:g}".format)
        ),
        "best_learning_rate": RankColumn(
            tr("learning rate"), lambda part: optional(part.best_learning_rate, "{:g}".format)
        ),
        "trainable_parameters": RankColumn(
            tr("parameters"), lambda part: optional(part.trainable_parameters, format_count)
        ),
        "target_tokens_per_parameter": RankColumn(
            tr("target tokens per parameter"), lambda part: optional(part.target_tokens_per_parameter, "{:.2g}".format)
        ),
        "saved_rank": RankColumn(tr("saved as rank"), _saved_rank),
        "adapter_bytes": RankColumn(tr("adapter"), lambda part: optional(part.adapter_bytes, format_bytes)),
        "step_seconds": RankColumn(tr("step alone"), lambda part: optional(part.step_seconds, format_seconds)),
        "runtime_seconds": RankColumn(tr("run alone"), lambda part: optional(part.runtime_seconds, format_seconds)),
        "tokens_per_second": RankColumn(tr("tokens/s"), lambda part: optional(part.tokens_per_second, "{:.0f}".format)),
        "peak_memory_bytes": RankColumn(tr("peak memory"), lambda part: optional(part.peak_memory_bytes, format_bytes)),
    }


def _saved_rank(part: RankSection) -> str:
    return "" if part.saved_rank in {None, part.rank} else str(part.saved_rank)


def _row_metric(name: str) -> RankColumn:
    heading = tr("{metric} (95% interval)", metric=metric_label(name))
    return RankColumn(heading, lambda part: loss_cell(getattr(part, name)), lambda part: getattr(part, f"{name}_ci95"))


def excess_cell(part: RankSection) -> str:
    """Write a rank's loss above the best, with as many digits as its interval supports: +0.021."""
    if part.excess_loss is None or part.excess_loss_ci95 is None:
        return NONE
    low, high = part.excess_loss_ci95
    return f"{part.excess_loss:+z.{decimals((high - low) / 2)}f}"


def excess_with_interval(part: RankSection) -> str:
    """Write the same with its 95% interval; ``lowest`` for the best rank."""
    if _best(part):
        return tr("lowest")
    if part.excess_loss is None or part.excess_loss_ci95 is None:
        return NONE
    return difference(part.excess_loss, *part.excess_loss_ci95)


def _best(part: RankSection) -> bool:
    return part.excess_loss == 0 and part.excess_loss_ci95 == (0.0, 0.0)


def rank_table(summary: SetSummary) -> Table:
    """Show every rank; columns without any value are left out."""
    shown = map(rank_columns().__getitem__, REPORT_COLUMNS)
    columns = [(column.heading, column.with_interval) for column in shown]
    table = make_table(summary.ranks, [part.rank for part in summary.ranks], *columns)
    return replace(drop_empty(table), style="ranks")


def claims_table(summary: StudySummary) -> Table:
    """Show what the tests show of every rank; no rows where nothing is compared."""
    note = tr(
        "Good enough: within the tolerance of every other rank. Too much worse: beyond the tolerance of another. "
        "p-values are corrected for the number of ranks; at most 0.05 counts as shown."
    )
    if summary.verdict.seeds == 1:
        note = f"{note} {tr('With one seed, in that seed only.')}"
    claims = summary.verdict.claims
    return make_table(
        claims,
        [claim.rank for claim in claims],
        (tr("rank"), lambda claim: str(claim.rank)),
        (tr("good enough?"), lambda claim: _shown(claim.adequate_p)),
        (tr("too much worse?"), lambda claim: _shown(claim.inadequate_p)),
        (tr("worse at all?"), lambda claim: _shown(claim.worse_p)),
        note=note,
    )


def _shown(p: float) -> str:
    return tr("shown ({p})", p=chance(p)) if p <= LEVEL else tr("not shown ({p})", p=chance(p))

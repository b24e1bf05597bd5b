"""Sections of the report, the same in the page and in Markdown."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from lorascope.analysis import StudySummary
from lorascope.analysis.cost.schema import GrowthSection, JointSection
from lorascope.charts.chart import Chart, SectionName
from lorascope.text.language import tr
from lorascope.text.numbers import format_seconds
from lorascope.text.tables.adapters import forgetting_table, spectra_table, truncation_table
from lorascope.text.tables.costs import memory_table, predicted_table
from lorascope.text.tables.ranks import claims_table
from lorascope.text.tables.readings import doubling_table, grid_table, reading_table
from lorascope.text.tables.table import Table
from lorascope.text.tables.trials import trial_table
from lorascope.units import format_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class ChartBlock:
    """Charts side by side."""

    kind: ClassVar = "charts"
    charts: tuple[Chart, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TableBlock:
    """A table."""

    kind: ClassVar = "table"
    table: Table


@dataclass(frozen=True, kw_only=True, slots=True)
class TextBlock:
    """A paragraph, or a list of points."""

    kind: ClassVar = "text"
    text: str
    points: tuple[str, ...] = ()
    note: bool = True
    """True for an explanation of a table, False for a finding."""


Blocks = list[ChartBlock | TableBlock | TextBlock | None]
SectionCharts = Mapping[SectionName, ChartBlock]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportSection:
    """A heading and its blocks."""

    title: str
    blocks: tuple[ChartBlock | TableBlock | TextBlock, ...]


def report_sections(summary: StudySummary, charts: Iterable[Chart]) -> tuple[ReportSection, ...]:
    """Arrange tables, texts and charts; sections without content are left out."""
    shown = _by_section(tuple(charts))
    rank = summary.truncation.rank if summary.truncation else None
    contents: tuple[tuple[str, Blocks], ...] = (
        (tr("What is shown of each rank"), _table(claims_table(summary))),
        (tr("How the loss fell"), [shown.get("loss_curves")]),
        (tr("What the usual script would conclude"), _learning_rates(summary, shown)),
        (tr("What a larger rank gains"), _larger_ranks(summary, shown)),
        (tr("Rank {rank} cut to smaller ranks", rank=rank), [shown.get("truncation"), *_truncation(summary)]),
        (tr("How much of each rank was used"), [shown.get("spectra"), *_table(spectra_table(summary.spectra))]),
        (tr("What each rank costs"), _costs(summary, shown)),
        (tr("Predicted and measured"), [shown.get("predictions"), *_predictions(summary)]),
        (tr("What LoRA gained and cost here"), _trade_offs(summary, shown)),
        (tr("What was forgotten"), [shown.get("forgetting"), *_forgetting(summary)]),
        (tr("What the curves and sizes say"), _table(reading_table(summary))),
        (tr("The trials"), _trials(summary)),
    )
    made = (ReportSection(title=title, blocks=tuple(filter(None, blocks))) for title, blocks in contents)
    return tuple(section for section in made if section.blocks)


def _by_section(charts: tuple[Chart, ...]) -> SectionCharts:
    names = dict.fromkeys(chart.section for chart in charts)
    return {name: ChartBlock(charts=tuple(chart for chart in charts if chart.section == name)) for name in names}


def _table(table: Table) -> Blocks:
    if not table.rows:
        return []
    return [TableBlock(table=table), TextBlock(text=table.note) if table.note else None]


def _learning_rates(summary: StudySummary, charts: SectionCharts) -> Blocks:
    orders, grid = _order_lines(summary), grid_table(summary)
    alpha = summary.readings.alpha
    return [
        TextBlock(text=tr("Ranks, lowest loss first:"), points=orders) if orders else None,
        charts.get("learning_rates"),
        TextBlock(text=tr("Held-out loss by learning rate; mean over seeds:")) if grid.rows else None,
        *_table(grid),
        TextBlock(text=tr("What the alpha rule does: {text}", text=alpha), note=False) if alpha else None,
    ]


def _order_lines(summary: StudySummary) -> tuple[str, ...]:
    """Write how the ranks are ordered at each common learning rate, and at their best ones."""
    baseline = summary.readings.naive
    lines = [
        tr(
            "at {rate}, after {step} steps: {by_training} by training loss; {held_out} by held-out loss",
            rate=f"{order.learning_rate:g}",
            step=order.step,
            by_training=", ".join(map(str, order.by_train_loss)),
            held_out=", ".join(map(str, order.by_eval_loss)),
        )
        for order in baseline.orders
    ]
    if len(baseline.at_best_rates) > 1:
        ranks = ", ".join(map(str, baseline.at_best_rates))
        lines.append(tr("each at its own best rate: {ranks} by held-out loss", ranks=ranks))
    return tuple(lines)


def _larger_ranks(summary: StudySummary, charts: SectionCharts) -> Blocks:
    doublings = doubling_table(summary)
    knee = TextBlock(text=summary.readings.knee_text, note=False) if doublings.rows else None
    return [charts.get("larger_ranks"), *_table(doublings), knee]


def _truncation(summary: StudySummary) -> Blocks:
    part = summary.truncation
    return _table(truncation_table(part, summary.study.tolerance)) if part else []


def _costs(summary: StudySummary, charts: SectionCharts) -> Blocks:
    points = _cost_points(summary)
    measured = TextBlock(text=tr("What the measurements say:"), points=points) if points else None
    return [measured, charts.get("costs"), *_table(memory_table(summary))]


def _cost_points(summary: StudySummary) -> tuple[str, ...]:
    """Say what the measurements show: steadiness, bottlenecks, growth with the rank, the joint run, bandwidth."""
    costs = summary.costs
    if costs is None:
        return ()
    points = [
        *(costs.readings.texts if costs.readings else ()),
        *(_growth(part) for part in costs.growth if part.phase == "held"),
        _joint(costs.joint) if costs.joint else "",
        costs.process.traffic_text if costs.process else "",
    ]
    return tuple(filter(None, points))


def _growth(part: GrowthSection) -> str:
    return tr(
        "Memory held after a step grows by {measured} for each rank more; adapter, gradient and optimizer state are "
        "{counted} of it by their sizes.",
        measured=format_bytes(part.bytes_per_rank),
        counted=format_bytes(part.counted_bytes_per_rank),
    )


def _joint(part: JointSection) -> str:
    if part.alone_seconds is None:
        return ""
    return tr(
        "All trials together trained for {joint}; by the measurements of each alone, one after the other would have "
        "taken {alone}.",
        joint=format_seconds(part.seconds),
        alone=format_seconds(part.alone_seconds),
    )


def _predictions(summary: StudySummary) -> Blocks:
    return _table(predicted_table(summary.predicted)) if summary.predicted else []


def _trade_offs(summary: StudySummary, charts: SectionCharts) -> Blocks:
    balance = summary.readings.balance
    return [charts.get("trade_offs"), TextBlock(text=balance, note=False) if balance else None]


def _forgetting(summary: StudySummary) -> Blocks:
    return _table(forgetting_table(summary, summary.generic_text)) if summary.generic_text else []


def _trials(summary: StudySummary) -> Blocks:
    """Show the trials where the table of ranks does not tell all of them."""
    plain = all(trial.outcome == "finished" for trial in summary.trials)
    return [] if plain and len(summary.trials) <= len(summary.ranks) else _table(trial_table(summary))

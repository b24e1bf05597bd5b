"""Sections of the report, the same in the page and in Markdown."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from lorascope.analysis import StudySummary
from lorascope.charts.chart import Chart, SectionName
from lorascope.report.costs_view import cost_points, memory_table
from lorascope.report.predicted import predicted_sections
from lorascope.report.readings_view import doubling_table, grid_table, order_lines, reading_table
from lorascope.report.usage import Section, forgetting_section, spectra_section, truncation_section
from lorascope.report.view import Table, claims_table, trial_table
from lorascope.text.language import tr


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


Block = ChartBlock | TableBlock | TextBlock
Blocks = Iterable[Block | None]
SectionCharts = Mapping[SectionName, ChartBlock]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportSection:
    """A heading and its blocks."""

    title: str
    blocks: tuple[Block, ...]


def report_sections(summary: StudySummary, charts: Iterable[Chart]) -> tuple[ReportSection, ...]:
    """Arrange tables, texts and charts; sections without content are left out."""
    shown = _by_section(tuple(charts))
    made = (
        _claims(summary),
        _section(tr("How the loss fell"), [shown.get("loss_curves")]),
        _rates(summary, shown),
        _larger(summary, shown),
        _examined(truncation_section(summary), shown.get("truncation")),
        _examined(spectra_section(summary), shown.get("spectra")),
        _costs(summary, shown),
        *(_examined(section, shown.get("predictions")) for section in predicted_sections(summary)),
        _trade_offs(summary, shown),
        _examined(forgetting_section(summary), shown.get("forgetting")),
        _readings(summary),
        _trials(summary),
    )
    return tuple(section for section in made if section.blocks)


def _by_section(charts: tuple[Chart, ...]) -> SectionCharts:
    names = dict.fromkeys(chart.section for chart in charts)
    return {name: ChartBlock(charts=tuple(chart for chart in charts if chart.section == name)) for name in names}


def _claims(summary: StudySummary) -> ReportSection:
    note = tr("p-values are corrected for the number of ranks; at most 0.05 counts as shown.")
    if summary.verdict.seeds == 1:
        note = f"{note} {tr('With one seed, in that seed only.')}"
    return _section(tr("What is shown of each rank"), _table(claims_table(summary), note))


def _rates(summary: StudySummary, charts: SectionCharts) -> ReportSection:
    blocks: list[Block | None] = []
    orders = tuple(order_lines(summary))
    if orders:
        blocks.append(TextBlock(text=tr("Ranks, lowest loss first:"), points=orders))
    blocks.append(charts.get("learning_rates"))
    grid = grid_table(summary)
    if len(grid.header) > 2:
        blocks += [TextBlock(text=tr("Held-out loss by learning rate; mean over seeds:")), TableBlock(table=grid)]
    if summary.readings.alpha:
        text = tr("What the alpha rule does: {text}", text=summary.readings.alpha)
        blocks.append(TextBlock(text=text, note=False))
    return _section(tr("What the usual script would conclude"), blocks)


def _larger(summary: StudySummary, charts: SectionCharts) -> ReportSection:
    blocks: list[Block | None] = [charts.get("larger_ranks")]
    doublings = doubling_table(summary)
    if doublings.rows:
        blocks += [TableBlock(table=doublings), TextBlock(text=summary.readings.knee_text, note=False)]
    return _section(tr("What a larger rank gains"), blocks)


def _costs(summary: StudySummary, charts: SectionCharts) -> ReportSection:
    note = tr("Memory while each rank trained alone, over all readings; 1 MB is 10^6 bytes.")
    points = cost_points(summary.costs)
    blocks = [
        TextBlock(text=tr("What the measurements say:"), points=points) if points else None,
        charts.get("costs"),
        *_table(memory_table(summary), note),
    ]
    return _section(tr("What each rank costs"), blocks)


def _trade_offs(summary: StudySummary, charts: SectionCharts) -> ReportSection:
    words = TextBlock(text=summary.readings.balance, note=False) if summary.readings.balance else None
    return _section(tr("What LoRA gained and cost here"), [charts.get("trade_offs"), words])


def _readings(summary: StudySummary) -> ReportSection:
    note = tr(
        "Losses are in nats a token. A training loss is stable from the step on where its average stays within "
        "{zone}% of its final level. The Pareto set takes held-out loss, time of a step and peak memory as they were "
        "estimated.",
        zone=f"{100 * summary.study.convergence_band:g}",
    )
    return _section(tr("What the curves and sizes say"), _table(reading_table(summary), note))


def _trials(summary: StudySummary) -> ReportSection:
    plain = all(trial.outcome == "finished" for trial in summary.trials)
    if plain and len(summary.trials) <= len(summary.ranks):
        return _section("", [])
    return _section(tr("The trials"), _table(trial_table(summary)))


def _examined(section: Section | None, charts: ChartBlock | None) -> ReportSection:
    if section is None:
        return _section("", [])
    return _section(section.title, [charts, *_table(section.table, section.note)])


def _table(table: Table, note: str = "") -> list[Block | None]:
    if not table.rows:
        return []
    return [TableBlock(table=table), TextBlock(text=note) if note else None]


def _section(title: str, blocks: Blocks) -> ReportSection:
    return ReportSection(title=title, blocks=tuple(block for block in blocks if block is not None))

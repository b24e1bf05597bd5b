"""Sections of the report, the same in the page and in Markdown."""

from collections.abc import Collection
from dataclasses import dataclass

from lorascope.analysis import StudySummary
from lorascope.analysis.cost.schema import GrowthSection, JointSection
from lorascope.analysis.summary import TargetSetsSection
from lorascope.charts.chart import Chart, SectionName
from lorascope.records import ShownRow
from lorascope.text.language import tr
from lorascope.text.numbers import format_seconds
from lorascope.text.say import say
from lorascope.text.tables.adapters import forgetting_table, spectra_table, truncation_table
from lorascope.text.tables.advice import headline
from lorascope.text.tables.costs import memory_table, predicted_table
from lorascope.text.tables.ranks import claims_table, rank_table
from lorascope.text.tables.readings import alpha_table, doubling_table, grid_table, reading_table
from lorascope.text.tables.table import Table
from lorascope.text.tables.target_sets import comparison_table, sets_table
from lorascope.text.tables.trials import trial_table
from lorascope.units import format_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Charts side by side, a table, or a text."""

    charts: tuple[Chart, ...] = ()
    table: Table | None = None
    text: str = ""
    points: tuple[str, ...] = ()
    """List below the text."""
    rows: tuple[ShownRow, ...] = ()
    """Training rows with their targets marked."""
    note: bool = True
    """True for a text that explains a table, False for a finding."""


Blocks = list[Block]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportSection:
    """A heading and its blocks."""

    title: str
    blocks: Blocks


def report_sections(
    summary: StudySummary, charts: Collection[Chart], shown: tuple[ShownRow, ...]
) -> tuple[ReportSection, ...]:
    """Arrange tables, texts and charts; sections without content are left out."""

    def row(section: SectionName) -> Blocks:
        found = tuple(chart for chart in charts if chart.section == section)
        return [Block(charts=found)] if found else []

    cut, predicted, generic = summary.truncation, summary.predicted, summary.generic_text
    cut_title = tr("Rank {rank} cut to smaller ranks", rank=cut.rank if cut else None)
    cuts = truncation_table(cut, summary.study.tolerance) if cut else None
    predictions = predicted_table(predicted) if predicted else None
    forgotten = forgetting_table(summary, generic) if generic else None
    contents: tuple[tuple[str, Blocks], ...] = (
        (tr("Sets of target modules"), _sets(summary.target_sets) if summary.target_sets else []),
        (tr("What is shown of each rank"), _table(claims_table(summary))),
        (tr("How the loss fell"), row("loss_curves")),
        (tr("What the usual script would conclude"), _orders(summary) + row("learning_rates") + _rates(summary)),
        (tr("What a larger rank gains"), row("larger_ranks") + _gains(summary)),
        (cut_title, row("truncation") + _table(cuts)),
        (tr("How much of each rank was used"), row("spectra") + _table(spectra_table(summary.spectra))),
        (tr("What each rank costs"), _measured(summary) + row("costs") + _table(memory_table(summary))),
        (tr("Predicted and measured"), row("predictions") + _table(predictions)),
        (tr("What LoRA gained and cost here"), row("trade_offs") + _finding(say(summary.readings.balance))),
        (tr("What was forgotten"), row("forgetting") + _table(forgotten)),
        (tr("What the curves and sizes say"), _table(reading_table(summary))),
        (tr("The trials"), _trials(summary)),
        (tr("The first training rows"), _rows(shown)),
    )
    return tuple(ReportSection(title=title, blocks=blocks) for title, blocks in contents if blocks)


def _table(table: Table | None) -> Blocks:
    """Show a table that has rows, and its note."""
    if table is None or not table.rows:
        return []
    return [Block(table=table), *([Block(text=table.note)] if table.note else [])]


def _sets(sets: TargetSetsSection) -> Blocks:
    """Show the sets beside each other, then the ranks of each."""
    blocks = [*_finding(say(sets.reason)), *_table(sets_table(sets)), *_table(comparison_table(sets))]
    for one in sets.sets:
        blocks += [Block(text=headline(one.summary), note=False), *_table(rank_table(one.summary))]
    shown = tr("All that is shown elsewhere is of {targets}.", targets=sets.use)
    return [*blocks, Block(text=shown)]


def _finding(text: str) -> Blocks:
    return [Block(text=text, note=False)] if text else []


def _orders(summary: StudySummary) -> Blocks:
    lines = _order_lines(summary)
    return [Block(text=tr("Ranks, lowest loss first:"), points=lines)] if lines else []


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


def _rates(summary: StudySummary) -> Blocks:
    grid = _table(grid_table(summary))
    if grid:
        grid.insert(0, Block(text=tr("Held-out loss by learning rate; mean over seeds:")))
    alphas = _table(alpha_table(summary))
    if alphas:
        grid += [Block(text=tr("Lowest held-out loss of all learning rates, by alpha:")), *alphas]
    alpha = say(summary.readings.alpha)
    return grid + _finding(alpha and tr("What the alpha rule does: {text}", text=alpha))


def _gains(summary: StudySummary) -> Blocks:
    doublings = _table(doubling_table(summary))
    return doublings and doublings + _finding(say(summary.readings.knee_text))


def _measured(summary: StudySummary) -> Blocks:
    points = _cost_points(summary)
    return [Block(text=tr("What the measurements say:"), points=points)] if points else []


def _cost_points(summary: StudySummary) -> tuple[str, ...]:
    """Say what the measurements show: steadiness, bottlenecks, growth with the rank, the joint run, bandwidth."""
    costs = summary.costs
    if costs is None:
        return ()
    points = [
        *map(say, costs.readings.texts if costs.readings else ()),
        *(_growth(part) for part in costs.growth if part.phase == "held"),
        _joint(costs.joint) if costs.joint else "",
        say(costs.process.traffic_text) if costs.process else "",
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


def _rows(shown: tuple[ShownRow, ...]) -> Blocks:
    marked = Block(text=tr("Targets, on which the loss is taken, are marked: highlighted, or in [[ ]]."))
    return [marked, Block(rows=shown)] if shown else []


def _trials(summary: StudySummary) -> Blocks:
    """Show the trials where the table of ranks does not tell all of them."""
    plain = all(trial.outcome == "finished" for trial in summary.trials)
    return [] if plain and len(summary.trials) <= len(summary.ranks) else _table(trial_table(summary))

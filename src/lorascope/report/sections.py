"""Sections of the report, the same in the page and in Markdown."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lorascope.analysis import StudySummary
from lorascope.analysis.adapters.schema import GenericTextSection
from lorascope.analysis.cost.schema import GrowthSection, JointSection
from lorascope.analysis.samples import ComparedAnswers
from lorascope.analysis.summary import TargetSetsSection
from lorascope.charts.chart import Chart, SectionName
from lorascope.records import ShownRow
from lorascope.text.language import tr
from lorascope.text.looks import look_table
from lorascope.text.next_steps import export_command
from lorascope.text.numbers import format_seconds
from lorascope.text.samples import AnsweredPrompt, answer_legend, answered_prompt
from lorascope.text.say import say
from lorascope.text.tables.adapters import forgetting_table, spectra_table, truncation_table
from lorascope.text.tables.advice import headline
from lorascope.text.tables.costs import memory_table, predicted_table, time_table
from lorascope.text.tables.metrics import metric_table, metrics_title
from lorascope.text.tables.overview import cost_table
from lorascope.text.tables.ranks import claims_table, rank_table
from lorascope.text.tables.readings import alpha_table, doubling_table, grid_table, reading_table
from lorascope.text.tables.table import Table
from lorascope.text.tables.target_sets import comparison_table, sets_table
from lorascope.units import format_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Charts, a table, or a text."""

    charts: tuple[Chart, ...] = ()
    one_at_a_time: bool = False
    """True for charts of which a page shows the one that a reader chooses."""
    table: Table | None = None
    text: str = ""
    points: tuple[str, ...] = ()
    """List below the text."""
    rows: tuple[ShownRow, ...] = ()
    """Training rows with their targets marked."""
    answers: tuple[AnsweredPrompt, ...] = ()
    """Held-out prompts with the answers of base and ranks."""
    command: str = ""
    note: bool = True
    """True for a text that explains a table, False for a finding."""


Blocks = list[Block]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportSection:
    """A heading and its blocks."""

    name: str
    """Anchor in a page."""
    title: str
    blocks: Blocks
    folded: bool = True
    """True for details, which a page shows on request."""


def report_sections(
    summary: StudySummary,
    charts: Collection[Chart],
    shown: tuple[ShownRow, ...],
    folder: Path,
    answers: Sequence[ComparedAnswers] = (),
) -> tuple[ReportSection, ...]:
    """Arrange tables, texts and charts, the most telling first; sections without content are left out."""

    def row(section: SectionName) -> Blocks:
        found = tuple(chart for chart in charts if chart.section == section)
        return [Block(charts=found)] if found else []

    def choice(section: SectionName) -> Blocks:
        return [replace(block, one_at_a_time=True) for block in row(section)]

    cut, generic = summary.truncation, summary.generic_text
    cuts = truncation_table(cut, summary.study.tolerance) if cut else None
    cut_title, title_of_metrics = tr("Shrink after training"), metrics_title(summary.metrics)
    in_sight: tuple[tuple[str, str, Blocks], ...] = (
        ("sets", tr("Sets of target modules"), _sets(summary.target_sets) if summary.target_sets else []),
        ("curves", tr("Loss curves"), choice("loss_curves")),
        ("rates", tr("Learning rate and rank"), row("learning_rates")),
        ("trade-off", tr("Loss against cost"), choice("trade_offs")),
        ("shrink", cut_title, row("truncation") + _shrink(summary, folder)),
        ("cost", tr("Cost of each rank"), _table(cost_table(summary))),
        ("metrics", title_of_metrics, _metrics(summary) if len(summary.metrics) > 1 else []),
        ("answers", tr("What each rank writes"), _answers(answers)),
    )
    details: tuple[tuple[str, str, Blocks], ...] = (
        ("tests", tr("Tests and p-values"), _table(claims_table(summary))),
        ("token-accuracy", title_of_metrics, _metrics(summary) if len(summary.metrics) == 1 else []),
        ("looks", tr("Looks at the data"), _table(look_table(summary))),
        ("training-loss", tr("If you had looked at training loss only"), _naive(summary)),
        ("grid", tr("Loss at every learning rate"), _rates(summary)),
        ("return", tr("Return on rank"), row("larger_ranks") + _gains(summary)),
        ("truncated", tr("Truncated adapters"), _table(cuts)),
        ("effective-rank", tr("Effective rank"), row("spectra") + _table(spectra_table(summary.spectra))),
        ("other-text", tr("Loss on other text"), row("forgetting") + _forgotten(summary, generic)),
        ("predicted", tr("Predicted and measured"), row("predictions") + _predicted(summary)),
        ("memory", tr("Memory and bottlenecks"), _measured(summary) + row("costs") + _table(memory_table(summary))),
        ("time", tr("Where the time went"), _table(time_table(summary))),
        ("numbers", tr("More numbers"), _numbers(summary)),
        ("rows", tr("The first training rows"), _rows(shown)),
    )
    return tuple(
        ReportSection(name=name, title=title, blocks=blocks, folded=folded)
        for folded, group in ((False, in_sight), (True, details))
        for name, title, blocks in group
        if blocks
    )


def _answers(compared: Sequence[ComparedAnswers]) -> Blocks:
    if not compared:
        return []
    return [Block(text=answer_legend(compared)), Block(answers=tuple(map(answered_prompt, compared)))]


def _metrics(summary: StudySummary) -> Blocks:
    if not summary.metrics:
        return []
    points = tuple(say(section.text) for section in summary.metrics)
    return [*_table(metric_table(summary.metrics)), Block(text=tr("What they show:"), points=points)]


def _shrink(summary: StudySummary, folder: Path) -> Blocks:
    cut = summary.truncation
    if cut is None or cut.adequate_rank in (None, cut.rank):
        return []
    loses = tr(
        "Truncated to rank {cut}, it loses at most the tolerance of {tolerance}:",
        cut=cut.adequate_rank,
        tolerance=f"{summary.study.tolerance:g}",
    )
    return [
        Block(text=loses, note=False),
        Block(command=export_command(summary, folder, cut.rank, truncate=cut.adequate_rank)),
    ]


def _naive(summary: StudySummary) -> Blocks:
    text = say(summary.readings.naive.text)
    return [*_finding(text), *_orders(summary)] if text else []


def _forgotten(summary: StudySummary, generic: GenericTextSection | None) -> Blocks:
    return _table(forgetting_table(summary, generic)) if generic else []


def _predicted(summary: StudySummary) -> Blocks:
    return _table(predicted_table(summary.predicted)) if summary.predicted else []


def _numbers(summary: StudySummary) -> Blocks:
    return [*_table(rank_table(summary)), *_table(reading_table(summary)), *_finding(say(summary.readings.balance))]


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

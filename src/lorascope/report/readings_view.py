"""The readings as tables and lines that a page shows."""

from lorascope.analysis.readings_schema import DoublingSection, GridSection, RankReadingSection
from lorascope.analysis.summary import RankSection, StudySummary
from lorascope.report.view import NONE, Table, drop_empty, row_colors, show_interval, show_loss, state_name
from lorascope.text.language import tr
from lorascope.units import format_bytes


def reading_table(summary: StudySummary) -> Table:
    """Show what each rank's curve and sizes say; a column without any value is left out."""
    header = (
        tr("rank"),
        tr("scale"),
        tr("stable from step"),
        tr("training loss above the lowest"),
        tr("spread at the end"),
        tr("gained over the base"),
        tr("above the largest rank (95% interval)"),
        tr("trained share"),
        tr("memory of weights and states"),
        tr("in the Pareto set"),
    )
    pairs = zip(summary.ranks, summary.readings.ranks, strict=True)
    rows = [_reading_row(part, reading) for part, reading in pairs]
    return drop_empty(header, rows, row_colors(summary, [part.rank for part in summary.ranks]))


def doubling_table(summary: StudySummary) -> Table:
    """Show what each step to the next larger rank gains."""
    steps = summary.readings.doublings
    header = (
        tr("ranks"),
        tr("gain (95% interval)"),
        tr("for a doubling"),
        tr("for a million parameters"),
    )
    return drop_empty(header, [_doubling_row(step) for step in steps], row_colors(summary, [s.larger for s in steps]))


def grid_table(summary: StudySummary) -> Table:
    """Show the held-out loss of every rank at every learning rate."""
    cells = {(cell.rank, cell.learning_rate): _cell(cell) for cell in summary.readings.grid}
    rates = sorted({rate for _, rate in cells})
    ranks = sorted({rank for rank, _ in cells})
    return Table(
        header=(tr("rank"), *(f"{rate:g}" for rate in rates)),
        rows=tuple((str(rank), *(cells.get((rank, rate), NONE) for rate in rates)) for rank in ranks),
        colors=row_colors(summary, ranks),
    )


def order_lines(summary: StudySummary) -> list[str]:
    """Write how the ranks are ordered at each common learning rate, and at their best ones."""
    naive = summary.readings.naive
    lines = [
        tr(
            "at {rate}, after {step} steps: {by_training} by training loss; {held_out} by held-out loss",
            rate=f"{order.learning_rate:g}",
            step=order.step,
            by_training=_ranks(order.by_train_loss),
            held_out=_ranks(order.by_eval_loss),
        )
        for order in naive.orders
    ]
    if len(naive.at_best_rates) > 1:
        ranks = _ranks(naive.at_best_rates)
        lines.append(tr("each at its own best rate: {ranks} by held-out loss", ranks=ranks))
    return lines


def _reading_row(part: RankSection, reading: RankReadingSection) -> tuple[str, ...]:
    return (
        str(part.rank),
        NONE if part.scale is None else f"{part.scale:.4g}",
        NONE if reading.stable_step is None else str(reading.stable_step),
        show_loss(reading.train_gap),
        show_loss(reading.final_spread),
        show_loss(reading.loss_gained),
        show_interval(reading.excess_over_largest, reading.excess_over_largest_ci95),
        NONE if reading.trainable_share is None else f"{reading.trainable_share:.2%}",
        NONE if reading.training_bytes is None else format_bytes(reading.training_bytes),
        NONE if part.pareto is None else tr("yes") if part.pareto else tr("no"),
    )


def _doubling_row(step: DoublingSection) -> tuple[str, ...]:
    return (
        tr("{smaller} to {larger}", smaller=step.smaller, larger=step.larger),
        show_interval(step.gain, step.gain_ci95),
        show_loss(step.gain_per_doubling),
        NONE if step.gain_per_million is None else f"{step.gain_per_million:.2g}",
    )


def _cell(cell: GridSection) -> str:
    loss = show_loss(cell.eval_loss)
    return loss if cell.outcome == "finished" else f"{loss} ({state_name(cell.outcome)})"


def _ranks(values: tuple[int, ...]) -> str:
    return ", ".join(str(value) for value in values)

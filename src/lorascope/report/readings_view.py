"""The readings as tables and lines that a page shows."""

from lorascope.analysis.reading_parts import DoublingPart, GridPart, RankReadingPart
from lorascope.analysis.summary import RankPart, StudySummary
from lorascope.report.view import NONE, STATES, Table, drop_empty, row_colors, show_interval, show_loss
from lorascope.units import format_bytes


def reading_table(summary: StudySummary) -> Table:
    """Show what each rank's curve and sizes say; a column without any value is left out."""
    header = (
        "rank",
        "scale",
        "stable from step",
        "training loss above the lowest",
        "spread at the end",
        "gained over the base",
        "above the largest rank (95% interval)",
        "trained share",
        "memory of weights and states",
        "in the Pareto set",
    )
    pairs = zip(summary.ranks, summary.readings.ranks, strict=True)
    rows = [_reading_row(part, reading) for part, reading in pairs]
    return drop_empty(header, rows, row_colors(summary, [part.rank for part in summary.ranks]))


def doubling_table(summary: StudySummary) -> Table:
    """Show what each step to the next larger rank gains."""
    steps = summary.readings.doublings
    header = ("ranks", "gain (95% interval)", "for a doubling", "for a million parameters")
    return drop_empty(header, [_doubling_row(step) for step in steps], row_colors(summary, [s.larger for s in steps]))


def grid_table(summary: StudySummary) -> Table:
    """Show the held-out loss of every rank at every learning rate."""
    cells = {(cell.rank, cell.learning_rate): _cell(cell) for cell in summary.readings.grid}
    rates = sorted({rate for _, rate in cells})
    ranks = sorted({rank for rank, _ in cells})
    return Table(
        header=("rank", *(f"{rate:g}" for rate in rates)),
        rows=tuple((str(rank), *(cells.get((rank, rate), NONE) for rate in rates)) for rank in ranks),
        colors=row_colors(summary, ranks),
    )


def order_lines(summary: StudySummary) -> list[str]:
    """Write how the ranks are ordered at each common learning rate, and at their best ones."""
    naive = summary.readings.naive
    lines = [
        f"at {order.learning_rate:g}, after {order.step} steps: {_ranks(order.by_train_loss)} by training loss; "
        f"{_ranks(order.by_eval_loss)} by held-out loss"
        for order in naive.orders
    ]
    if len(naive.at_best_rates) > 1:
        lines.append(f"each at its own best rate: {_ranks(naive.at_best_rates)} by held-out loss")
    return lines


def _reading_row(part: RankPart, reading: RankReadingPart) -> tuple[str, ...]:
    return (
        str(part.rank),
        NONE if part.scale is None else f"{part.scale:.4g}",
        NONE if reading.stable_step is None else str(reading.stable_step),
        show_loss(reading.train_gap),
        show_loss(reading.final_spread),
        show_loss(reading.loss_gained),
        show_interval(reading.above_largest, reading.above_largest_ci95),
        NONE if reading.trainable_share is None else f"{reading.trainable_share:.2%}",
        NONE if reading.training_bytes is None else format_bytes(reading.training_bytes),
        NONE if part.pareto is None else "yes" if part.pareto else "no",
    )


def _doubling_row(step: DoublingPart) -> tuple[str, ...]:
    return (
        f"{step.smaller} to {step.larger}",
        show_interval(step.gain, step.gain_ci95),
        show_loss(step.gain_per_doubling),
        NONE if step.gain_per_million is None else f"{step.gain_per_million:.2g}",
    )


def _cell(cell: GridPart) -> str:
    loss = show_loss(cell.eval_loss)
    return loss if cell.outcome == "finished" else f"{loss} ({STATES[cell.outcome]})"


def _ranks(values: tuple[int, ...]) -> str:
    return ", ".join(str(value) for value in values)

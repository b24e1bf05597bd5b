"""Tables of the readings: curves and sizes, gains of larger ranks, losses by learning rate."""

from lorascope.analysis.readings_schema import GridSection
from lorascope.analysis.summary import StudySummary
from lorascope.text.language import tr
from lorascope.text.tables.ranks import rank_columns
from lorascope.text.tables.table import NONE, Table, drop_empty, interval_cell, loss_cell, make_table, optional
from lorascope.text.tables.trials import outcome_names
from lorascope.units import format_bytes


def reading_table(summary: StudySummary) -> Table:
    """Show what each rank's curve and sizes say; columns without any value are left out."""
    note = tr(
        "Losses are in nats a token. A training loss is stable from the step on where its average stays within "
        "{zone}% of its final level. The Pareto set takes held-out loss, time of a step and peak memory as they were "
        "estimated.",
        zone=f"{100 * summary.study.convergence_band:g}",
    )
    scale = rank_columns()["scale"]
    table = make_table(
        list(zip(summary.ranks, summary.readings.ranks, strict=True)),
        [part.rank for part in summary.ranks],
        (tr("rank"), lambda pair: str(pair[0].rank)),
        (scale.heading, lambda pair: scale.cell(pair[0])),
        (tr("stable from step"), lambda pair: optional(pair[1].stable_step, str)),
        (tr("training loss above the lowest"), lambda pair: loss_cell(pair[1].train_gap)),
        (tr("spread at the end"), lambda pair: loss_cell(pair[1].final_spread)),
        (tr("gained over the base"), lambda pair: loss_cell(pair[1].loss_gained)),
        (
            tr("above the largest rank (95% interval)"),
            lambda pair: interval_cell(pair[1].excess_over_largest, pair[1].excess_over_largest_ci95),
        ),
        (tr("trained share"), lambda pair: optional(pair[1].trainable_share, "{:.2%}".format)),
        (tr("memory of weights and states"), lambda pair: optional(pair[1].training_bytes, format_bytes)),
        (tr("in the Pareto set"), lambda pair: optional(pair[0].pareto, lambda on: tr("yes") if on else tr("no"))),
        note=note,
    )
    return drop_empty(table)


def doubling_table(summary: StudySummary) -> Table:
    """Show what each step to the next larger rank gains."""
    steps = summary.readings.doublings
    table = make_table(
        steps,
        [step.larger for step in steps],
        (tr("ranks"), lambda step: tr("{smaller} to {larger}", smaller=step.smaller, larger=step.larger)),
        (tr("gain (95% interval)"), lambda step: interval_cell(step.gain, step.gain_ci95)),
        (tr("for a doubling"), lambda step: loss_cell(step.gain_per_doubling)),
        (tr("for a million parameters"), lambda step: optional(step.gain_per_million, "{:.2g}".format)),
    )
    return drop_empty(table)


def grid_table(summary: StudySummary) -> Table:
    """Show the held-out loss of every rank at every learning rate, and its best alpha; no rows with one rate."""
    grid = summary.at_best_alpha(summary.readings.grid)
    cells = {(cell.rank, cell.learning_rate): _loss(cell) for cell in grid}
    rates = sorted({rate for _, rate in cells})
    ranks = sorted({rank for rank, _ in cells}) if len(rates) > 1 else []
    return Table(
        header=(tr("rank"), *(f"{rate:g}" for rate in rates)),
        rows=tuple((str(rank), *(cells.get((rank, rate), NONE) for rate in rates)) for rank in ranks),
        ranks=tuple(ranks),
    )


def alpha_table(summary: StudySummary) -> Table:
    """Show the lowest held-out loss of every rank at every alpha; no rows where each rank has one alpha."""
    tried = [part for part in summary.ranks if len(part.lora_alphas) > 1]
    alphas = sorted({alpha for part in tried for alpha in part.lora_alphas})
    ended: dict[tuple[int, float], list[float]] = {}
    for cell in summary.readings.grid:
        if cell.outcome == "finished" and cell.eval_loss is not None:
            ended.setdefault((cell.rank, cell.lora_alpha), []).append(cell.eval_loss)
    return Table(
        header=(tr("rank"), *(f"{tr('alpha')} {alpha:g}" for alpha in alphas)),
        rows=tuple(
            (str(part.rank), *(loss_cell(min(ended.get((part.rank, alpha), ()), default=None)) for alpha in alphas))
            for part in tried
        ),
        ranks=tuple(part.rank for part in tried),
    )


def _loss(cell: GridSection) -> str:
    loss = loss_cell(cell.eval_loss)
    return loss if cell.outcome == "finished" else f"{loss} ({outcome_names()[cell.outcome]})"

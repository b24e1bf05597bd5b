"""Held-out loss by rank and learning rate: a heat map."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lorascope.analysis import StudyData, StudySummary
from lorascope.charts.chart import Chart
from lorascope.charts.vega import INK, Spec, finish
from lorascope.text.language import tr
from lorascope.text.metrics import metric_title

ROW_HEIGHT = 34
"""Pixels of one rank."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeatCell:
    """One rank at one learning rate."""

    rank: int
    learning_rate: float
    loss: float | None
    """Held-out loss, nats a token, mean over the seeds that have one."""
    excess: float | None
    """That loss above the lowest of all cells of finished trials; at most the base model's."""
    finished: bool
    best: bool
    """True at the rank's best learning rate."""


def charts(_: StudyData, summary: StudySummary) -> Iterator[Chart]:
    """Make the heat map where several learning rates were tried."""
    cells = eval_loss_map(summary)
    if cells:
        yield Chart(
            name="eval_loss_map",
            section="learning_rates",
            title=tr("Held-out loss by rank and learning rate"),
            caption=tr(
                "Mean over seeds; the darker, the lower. In a frame: each rank's best rate. × marks a trial that did "
                "not finish."
            ),
            spec=loss_map_spec(cells),
        )


def eval_loss_map(summary: StudySummary) -> tuple[HeatCell, ...]:
    """Take the grid of ranks and learning rates; none where there is one rate or no loss."""
    grid = summary.at_best_alpha(summary.readings.grid)
    ended = [cell.eval_loss for cell in grid if cell.eval_loss is not None and cell.outcome == "finished"]
    if len({cell.learning_rate for cell in grid}) < 2 or not ended:
        return ()
    best = {part.rank: part.best_learning_rate for part in summary.ranks}
    bases = [trial.base_eval_loss for trial in summary.trials if trial.base_eval_loss is not None]
    lowest, highest = min(ended), max([*ended, *bases])
    return tuple(
        HeatCell(
            rank=cell.rank,
            learning_rate=cell.learning_rate,
            loss=cell.eval_loss,
            excess=None if cell.eval_loss is None else min(max(cell.eval_loss, lowest), highest) - lowest,
            finished=cell.outcome == "finished",
            best=best.get(cell.rank) == cell.learning_rate,
        )
        for cell in grid
    )


def loss_map_spec(cells: Sequence[HeatCell]) -> Spec:
    """Draw the darkest field where the loss is lowest, each rank's best in a frame, a cross where none finished."""
    rates = [f"{rate:g}" for rate in sorted({cell.learning_rate for cell in cells})]
    ranks = [str(rank) for rank in sorted({cell.rank for cell in cells})]
    highest = max(cell.excess for cell in cells if cell.excess is not None)
    rows = [
        {
            "rank": str(cell.rank), "rate": f"{cell.learning_rate:g}", "excess": cell.excess, "best": cell.best,
            "words": _cell_words(cell), "dark": cell.excess is not None and cell.excess < 0.2 * highest,
        }
        for cell in cells
    ]  # fmt: skip
    x = {
        "field": "rate", "type": "ordinal", "sort": rates, "title": metric_title("learning_rate"),
        "axis": {"labelAngle": 0, "labelOverlap": True},
    }  # fmt: skip
    y = {"field": "rank", "type": "ordinal", "sort": ranks, "title": metric_title("rank")}
    title = tr("held-out loss above the lowest (nats/token)")
    legend = {"orient": "top", "titleOrient": "top", "gradientLength": 180, "title": title}
    scale = {"type": "sqrt", "scheme": "purples", "reverse": True, "domain": [0, highest or 1e-3]}
    color = {"field": "excess", "type": "quantitative", "scale": scale, "legend": legend}
    words = {"condition": {"test": "datum.dark", "value": "#ffffff"}, "value": "#1d2129"}
    missing = [row for row in rows if row["excess"] is None]
    known = [row for row in rows if row["excess"] is not None]
    layers: list[Spec] = [
        {"data": {"values": known}, "mark": {"type": "rect"}, "encoding": {"x": x, "y": y, "color": color}},
        {"data": {"values": known}, "mark": {"type": "text", "fontSize": 11},
         "encoding": {"x": x, "y": y, "text": {"field": "words"}, "color": words}},
        {"data": {"values": [row for row in known if row["best"]]},
         "mark": {"type": "rect", "filled": False, "stroke": "#e08a00", "strokeWidth": 3},
         "encoding": {"x": x, "y": y}},
        {"data": {"values": missing}, "mark": {"type": "text", "fontSize": 14, "color": INK},
         "encoding": {"x": x, "y": y, "text": {"field": "words"}}},
    ]  # fmt: skip
    return finish(layers, height=ROW_HEIGHT * len(ranks))


def _cell_words(cell: HeatCell) -> str:
    loss = "" if cell.loss is None else f"{cell.loss:.4f}" if cell.loss < 100 else f"{cell.loss:.3g}"
    return loss if cell.finished else f"{loss} ×".strip()

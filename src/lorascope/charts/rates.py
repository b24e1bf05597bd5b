"""Held-out loss against learning rate: how each rank's best rate was found."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from lorascope.analysis import StudySummary
from lorascope.charts.vega import INK, Spec, chosen, color_of_rank, cross, dash_of_rank, finish, legend_choice
from lorascope.text.language import tr
from lorascope.text.metrics import metric_title

ROW_HEIGHT = 34
"""Pixels of one rank in the heat map."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RatePoint:
    """One learning rate of one rank."""

    rank: int
    learning_rate: float
    loss: float
    """Last held-out loss, nats a token, mean over the seeds that got furthest; at most the base model's."""
    finished: bool
    """False where no trial of this rate went to its end."""


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


def eval_loss_by_rate(summary: StudySummary) -> tuple[RatePoint, ...]:
    """Take the last held-out loss of every rate that has one; none where each rank was given a single rate."""
    points = []
    for part in summary.ranks:
        for rate in part.learning_rates if len(part.learning_rates) > 1 else ():
            trials = [t for t in summary.trials if (t.rank, t.learning_rate) == (part.rank, rate)]
            ended = [t for t in trials if t.outcome == "finished"]
            losses = [t.eval_loss for t in ended or trials if t.eval_loss is not None]
            if losses:
                base = max((t.base_eval_loss for t in trials if t.base_eval_loss is not None), default=max(losses))
                points.append(
                    RatePoint(rank=part.rank, learning_rate=rate, loss=min(fmean(losses), base), finished=bool(ended))
                )
    return tuple(points)


def eval_loss_map(summary: StudySummary) -> tuple[HeatCell, ...]:
    """Take the grid of ranks and learning rates; none where there is one rate or no loss."""
    grid = summary.readings.grid
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


def loss_by_rate_spec(points: Sequence[RatePoint], ranks: Sequence[int]) -> Spec:
    """Draw a line through each rank's finished rates, and a cross at the last loss of every other."""
    rate, loss = metric_title("learning_rate"), metric_title("eval_loss")
    tried = sorted({point.learning_rate for point in points})
    x = {
        "field": "rate", "type": "quantitative", "title": rate,
        "scale": {"type": "log", "nice": False, "padding": 14}, "axis": {"format": "~g", "values": tried},
    }  # fmt: skip
    y = {"field": "loss", "type": "quantitative", "title": loss, "scale": {"zero": False}}
    tips = [
        {"field": "rank", "title": metric_title("rank")},
        {"field": "rate", "type": "quantitative", "format": "~g", "title": rate},
        {"field": "loss", "type": "quantitative", "format": ".4f", "title": loss},
    ]
    encoding = {"x": x, "y": y, "color": color_of_rank(ranks), "opacity": chosen(1.0)}
    line = {"type": "line", "strokeWidth": 2}
    spots = {"type": "point", "filled": True, "size": 55}
    ended = {"values": _rate_rows(points, finished=True)}
    layers: list[Spec] = [
        {"name": "ranks", "params": [legend_choice()], "data": ended,
         "mark": line, "encoding": encoding | {"strokeDash": dash_of_rank(ranks)}},
        {"data": ended, "mark": spots, "encoding": encoding | {"tooltip": tips}},
    ]  # fmt: skip
    stopped = _rate_rows(points, finished=False)
    if stopped:
        layers.append(
            {"data": {"values": stopped}, "mark": cross() | {"size": 90}, "encoding": encoding | {"tooltip": tips}}
        )
    return finish(layers)


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
    legend = {"orient": "top", "gradientLength": 180, "title": tr("held-out loss above the lowest (nats/token)")}
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


def _rate_rows(points: Sequence[RatePoint], *, finished: bool) -> list[dict[str, object]]:
    return [
        {"rank": str(point.rank), "rate": point.learning_rate, "loss": point.loss}
        for point in points
        if point.finished == finished
    ]

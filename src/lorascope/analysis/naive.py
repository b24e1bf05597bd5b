"""The naive reading: what the usual script concludes from one learning rate, and the losses it leaves out."""

from collections.abc import Callable, Mapping, Sequence

from lorascope.analysis.ranks import RankChoice
from lorascope.analysis.reading_parts import GridPart, NaivePart, OrderPart
from lorascope.analysis.summary import RecommendationPart, TrialPart
from lorascope.analysis.wording import nats

Loss = Callable[[GridPart], float | None]


def read_grid(trials: Sequence[TrialPart]) -> tuple[GridPart, ...]:
    """Mean the trials of each rank and learning rate over their seeds, in the order of the plan."""
    cells: dict[tuple[int, float], list[TrialPart]] = {}
    for trial in trials:
        cells.setdefault((trial.rank, trial.learning_rate), []).append(trial)
    return tuple(
        GridPart(
            rank=rank,
            learning_rate=learning_rate,
            train_loss=_mean([trial.train_loss for trial in seeds]),
            eval_loss=_mean([trial.eval_loss for trial in seeds]),
            outcome=next((trial.outcome for trial in seeds if trial.outcome != "finished"), "finished"),
        )
        for (rank, learning_rate), seeds in cells.items()
    )


def read_naively(
    grid: Sequence[GridPart], choices: Mapping[int, RankChoice], recommendation: RecommendationPart
) -> NaivePart:
    """Order the ranks as the usual script does and say where the study's own reading differs."""
    ranks = {cell.rank for cell in grid}
    rates = dict.fromkeys(cell.learning_rate for cell in grid)
    orders = tuple(order for rate in rates if len(ranks) > 1 and (order := _order(grid, ranks, rate)) is not None)
    at_best = tuple(sorted(choices, key=lambda rank: choices[rank].rows.loss))
    naive = orders[0].by_train_loss[0] if orders else None
    return NaivePart(
        orders=orders,
        at_best_rates=at_best,
        rank=naive,
        text=_text(grid, orders, at_best, choices, recommendation) if orders else _no_order(ranks),
    )


def _order(grid: Sequence[GridPart], ranks: set[int], rate: float) -> OrderPart | None:
    cells = [cell for cell in grid if cell.learning_rate == rate and cell.outcome == "finished"]
    by_train = _sorted(cells, lambda cell: cell.train_loss)
    by_eval = _sorted(cells, lambda cell: cell.eval_loss)
    if set(by_train) != ranks or set(by_eval) != ranks:
        return None
    return OrderPart(learning_rate=rate, by_train_loss=by_train, by_eval_loss=by_eval)


def _sorted(cells: Sequence[GridPart], loss: Loss) -> tuple[int, ...]:
    found = [(value, cell.rank) for cell in cells if (value := loss(cell)) is not None]
    return tuple(rank for _, rank in sorted(found))


def _no_order(ranks: set[int]) -> str:
    if len(ranks) < 2:
        return "There is one rank, so there is nothing to order."
    return "There is no naive reading: no learning rate has a final loss of every rank."


def _text(
    grid: Sequence[GridPart],
    orders: Sequence[OrderPart],
    at_best: Sequence[int],
    choices: Mapping[int, RankChoice],
    recommendation: RecommendationPart,
) -> str:
    order = orders[0]
    losses = {cell.rank: cell.train_loss for cell in grid if cell.learning_rate == order.learning_rate}
    naive, own = order.by_train_loss[0], recommendation.efficient.rank
    shown = ", ".join(f"rank {rank} {nats(losses[rank] or 0.0)}" for rank in order.by_train_loss)
    parts = [
        f"The usual script, with one learning rate ({order.learning_rate:g}) and the training loss at the end, would "
        f"choose rank {naive}: {shown}."
    ]
    if order.by_eval_loss != order.by_train_loss:
        parts.append(f"Held-out rows order the ranks otherwise at that rate: {_names(order.by_eval_loss)}.")
    several = any(choice.learning_rate != order.learning_rate for choice in choices.values())
    if several and tuple(at_best) != order.by_train_loss:
        shown = ", ".join(
            f"rank {rank} {nats(choices[rank].rows.loss)} (at {choices[rank].learning_rate:g})" for rank in at_best
        )
        parts.append(f"Each at its own best rate, held-out rows order them: {shown}.")
    if own is not None:
        parts.append(
            f"This study names rank {own} too."
            if own == naive
            else f"This study names rank {own} instead, {recommendation.efficient.reason}."
        )
    return " ".join(parts)


def _names(ranks: Sequence[int]) -> str:
    return ", ".join(f"rank {rank}" for rank in ranks)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None

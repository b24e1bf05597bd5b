"""The naive baseline: the conclusion of the usual script from one learning rate, and the losses it leaves out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lorascope.analysis.estimates.losses import final_train_loss
from lorascope.analysis.estimates.ranks import RankChoice
from lorascope.analysis.readings_schema import GridSection, NaiveSection, OrderSection
from lorascope.analysis.study_data import StudyData
from lorascope.analysis.summary import TrialSection
from lorascope.analysis.verdict.schema import RecommendationSection
from lorascope.message import Message, Sentences
from lorascope.records import UNSUCCESSFUL
from lorascope.search.trials import planned_alphas


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """All ranks side by side at one learning rate."""

    learning_rate: float
    step: int
    train: Mapping[int, float]
    """Training loss at that step, by rank."""
    held_out: Mapping[int, float]

    @property
    def order(self) -> OrderSection:
        """The ranks by either loss."""
        return OrderSection(
            learning_rate=self.learning_rate,
            step=self.step,
            by_train_loss=_lowest_first(self.train),
            by_eval_loss=_lowest_first(self.held_out),
        )


def read_grid(trials: Sequence[TrialSection]) -> tuple[GridSection, ...]:
    """Mean the trials of each rank, alpha and learning rate over their seeds, in the order of the plan."""
    cells: dict[tuple[int, float, float], list[TrialSection]] = {}
    for trial in trials:
        cells.setdefault((trial.rank, trial.lora_alpha, trial.learning_rate), []).append(trial)
    return tuple(
        GridSection(
            rank=rank,
            lora_alpha=alpha,
            learning_rate=learning_rate,
            train_loss=_mean([trial.train_loss for trial in seeds]),
            eval_loss=_mean([trial.eval_loss for trial in seeds]),
            outcome=next((trial.outcome for trial in seeds if trial.outcome != "finished"), "finished"),
        )
        for (rank, alpha, learning_rate), seeds in cells.items()
    )


def read_naively(
    data: StudyData,
    trials: Sequence[TrialSection],
    choices: Mapping[int, RankChoice],
    recommendation: RecommendationSection,
) -> NaiveSection:
    """Order the ranks as the usual script does, at one alpha, and say where the study's own reading differs."""
    first = {rank: planned_alphas(data.spec, rank)[0] for rank in data.ranks}
    at_first = [trial for trial in trials if trial.lora_alpha == first[trial.rank]]
    rates = dict.fromkeys(trial.learning_rate for trial in at_first)
    found = [side for rate in rates if (side := _side(data, at_first, rate))]
    # The script trains to the end: of rates that early exit or an interruption cut short, the longest stands for it
    sides = sorted(found, key=lambda side: -side.step)
    at_best = tuple(sorted(choices, key=lambda rank: choices[rank].rows.loss))
    text: Sentences = (Message("naive.one_rank" if len(data.ranks) < 2 else "naive.no_order"),)
    if sides:
        text = tuple(_text(data, sides[0], at_best, choices, recommendation))
    return NaiveSection(
        orders=tuple(side.order for side in sides),
        at_best_rates=at_best,
        rank=sides[0].order.by_train_loss[0] if sides else None,
        text=text,
    )


def _side(data: StudyData, trials: Sequence[TrialSection], rate: float) -> Side | None:
    """Put the ranks side by side at the last evaluation that all of them have, over the seeds that all of them have."""
    usable = [t for t in trials if t.learning_rate == rate and t.outcome not in UNSUCCESSFUL]
    seeds = set.intersection(*({trial.seed for trial in usable if trial.rank == rank} for rank in data.ranks))
    shown = [trial for trial in usable if trial.seed in seeds]
    losses = [
        {record.step: loss for record in data.evaluations[t.trial_id] if (loss := record.loss) is not None}
        for t in shown
    ]
    step = max(set.intersection(*map(set, losses)), default=0) if losses else 0
    if step == 0 or len(data.ranks) < 2:
        return None
    train: dict[int, list[float | None]] = {}
    held_out: dict[int, list[float | None]] = {}
    for trial, by_step in zip(shown, losses, strict=True):
        done = data.steps[trial.trial_id].until(step)
        train.setdefault(trial.rank, []).append(final_train_loss(done, data.steps_per_epoch))
        held_out.setdefault(trial.rank, []).append(by_step[step])
    means = _means(train)
    if len(means) < len(data.ranks):
        return None
    return Side(learning_rate=rate, step=step, train=means, held_out=_means(held_out))


def _means(losses: Mapping[int, Sequence[float | None]]) -> dict[int, float]:
    return {rank: mean for rank, values in losses.items() if (mean := _mean(values)) is not None}


def _lowest_first(losses: Mapping[int, float]) -> tuple[int, ...]:
    return tuple(sorted(losses, key=lambda rank: losses[rank]))


def _text(
    data: StudyData,
    side: Side,
    at_best: Sequence[int],
    choices: Mapping[int, RankChoice],
    recommendation: RecommendationSection,
) -> Iterator[Message]:
    order, own = side.order, recommendation.use.rank
    yield _script(data, side)
    if order.by_eval_loss != order.by_train_loss:
        yield Message("naive.held_out", ranks=tuple(Message("naive.rank", rank=rank) for rank in order.by_eval_loss))
    several = any(choice.learning_rate != side.learning_rate for choice in choices.values())
    if several and tuple(at_best) != order.by_train_loss:
        losses = tuple(
            Message("naive.rank_at_rate", rank=rank, loss=choices[rank].rows.loss, rate=choices[rank].learning_rate)
            for rank in at_best
        )
        yield Message("naive.best_rates", ranks=losses)
    if own is not None and own == order.by_train_loss[0]:
        yield Message("naive.same_rank", rank=own)
    elif own is not None:
        yield Message("naive.other_rank", rank=own)


def _script(data: StudyData, side: Side) -> Message:
    order, rate = side.order.by_train_loss, side.learning_rate
    ranks = tuple(Message("naive.rank_loss", rank=rank, loss=side.train[rank]) for rank in order)
    if data.resolved is None or side.step >= data.resolved.total_steps:
        return Message("naive.script", rate=rate, rank=order[0], ranks=ranks)
    return Message("naive.script_cut_short", rate=rate, steps=side.step, rank=order[0], ranks=ranks)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None

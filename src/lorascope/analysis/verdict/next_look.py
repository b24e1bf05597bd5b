"""The next look of a sequential study: which losses it compares, what it decides, and what data to add."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from statistics import fmean

from scipy.special import stdtrit

from lorascope.analysis.estimates.joint_steps import joint_steps
from lorascope.analysis.estimates.looks import (
    Differences,
    both_ways,
    latest,
    look_differences,
    rows_of_look,
)
from lorascope.analysis.estimates.paired import LEVEL, SeedRows, Uncertain, joint_degrees
from lorascope.analysis.estimates.wall_time import wall_share
from lorascope.analysis.study_data import StudyData
from lorascope.analysis.verdict.decide import LEAST, is_settled, open_ranks, still_falling
from lorascope.analysis.verdict.shown import claims_over_looks
from lorascope.records import NOT_COMPARED, EvalRecord, FurtherEvalRecord, LookRecord, Setting
from lorascope.search.best import best_settings, latest_losses
from lorascope.search.sequential import (
    FIRST_SEEDS,
    MOST_SEEDS,
    Purchase,
    best_purchase,
    first_seeds,
    sequential_seeds,
)
from lorascope.search.work import TRAINING


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """Costs of further data, in tokens that go forward through one adapter: the same wherever the study runs."""

    row: float
    """A held-out row."""
    trial: float
    """A trial, with the evaluations of its training."""
    token_seconds: float
    """Measured seconds of such a token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Most:
    """The most data that a study can have."""

    rows: int
    seeds: int

    def information(self, differences: Sequence[Uncertain], *, seeds: int, rows: int) -> float:
        """Return the information so far as a share of that of the most data, a ratio of variances."""
        if (seeds, rows) == (self.seeds, self.rows):
            return 1.0
        now = fmean(found.variance for found in differences)
        most = fmean(_variance(found, self.seeds / seeds, self.rows / rows) for found in differences)
        return min(1.0, most / now) if now else 1.0


def measured_prices(data: StudyData) -> Prices:
    """Return what a trial and a held-out row cost, by what the study has trained and evaluated so far.

    Seconds are wall time: groups that train at once make a token cheaper.
    """
    resolved = data.resolved
    assert resolved is not None
    assert resolved.eval_tokens is not None
    row = resolved.eval_tokens / resolved.eval_examples
    trials = [
        TRAINING * int(data.steps[name].tokens.sum()) + row * sum(map(_evaluated, data.evaluations[name]))
        for name, outcome in data.outcomes.items()
        if outcome.state == "finished"
    ]
    evaluations, further = list(chain(*data.evaluations.values())), list(chain(*data.further.values()))
    tokens = TRAINING * sum(int(steps.tokens.sum()) for steps in data.steps.values())
    tokens += row * (sum(map(_evaluated, evaluations)) + sum(map(_evaluated, further)))
    steps = joint_steps(data.steps[trial.trial_id] for trial in data.trials)
    seconds = wall_share(data) * (float(steps.seconds.sum()) + math.fsum(record.seconds for record in evaluations))
    seconds += math.fsum(record.seconds for record in further)
    return Prices(row=row, trial=fmean(trials or [0.0]), token_seconds=seconds / tokens if tokens else 0.0)


def _evaluated(record: EvalRecord | FurtherEvalRecord) -> int:
    """Return the rows that went through the model; the base's evaluation is copied to each trial."""
    return len(record.example_nats) if record.seconds else 0


def next_look(data: StudyData, *, rows: int, prices: Prices, seconds_left: float = math.inf) -> LookRecord:
    """Take the next look at a study whose trials and rows are there as the last look asked.

    It is the last where fewer than two ranks can be compared.

    Args:
        data: the study's records.
        rows: held-out rows that it can have.
        prices: of further data.
        seconds_left: time that it may take yet.
    """
    look = _begin(data)
    if len(look.ranks) < 2:
        return look
    most = Most(rows=rows, seeds=max(MOST_SEEDS, len(look.seeds)))
    seen = [*(rows_of_look(data, before) for before in data.looks), rows_of_look(data, look)]
    raw = [found for (a, b), found in both_ways(seen[-1]).items() if a < b]
    before = max((earlier.information for earlier in data.looks), default=0.0)
    known = max(before, most.information(raw, seeds=len(look.seeds), rows=look.rows))
    look = replace(look, information=known)
    look, is_open = _with_open_ranks(data, look, seen)
    if _needs_steps(data, look, min(look.ranks, key=lambda rank: seen[-1][rank].loss)):
        return replace(look, next="steps")
    missing = max(0, FIRST_SEEDS - len(look.seeds))  # the time ended before the first seeds; rows are no help then
    few = look.rows < LEAST  # which no verdict may rest on
    if not is_open and not missing and not few:
        return replace(look, next="decided")
    needed = "rows" if few else "seed" if missing else None
    purchases = [one for one in _purchases(data, look, raw, most, prices) if needed in (None, one.kind)]
    best = best_purchase(
        (one for one in purchases if one.cost * prices.token_seconds <= seconds_left), _half_width(raw, look, 1, 1)
    )
    if best is not None:
        return replace(look, next=best.kind, next_value=best.value, next_seconds=best.cost * prices.token_seconds)
    # Nothing can follow, so that the last look may spend all that is left of the chance of error
    look, is_open = _with_open_ranks(data, replace(look, information=1.0), seen)
    if not is_open and len(look.seeds) > 1 and not few:  # one seed decides nothing
        return replace(look, next="decided")
    cheapest = min((max(1, missing) * one.cost for one in purchases), default=None)
    return look if cheapest is None else replace(look, next="budget", next_seconds=cheapest * prices.token_seconds)


def _begin(data: StudyData) -> LookRecord:
    """Return the look that has not been taken, as if nothing followed from it."""
    if data.looks:
        last = data.looks[-1]
        settings, ranks, seeds = last.settings, last.next_ranks, last.seeds
        if last.next == "seed" and all(last.next_value in _seeds(data, rank, settings[rank]) for rank in ranks):
            seeds = (*seeds, last.next_value)  # else the time ended before it was trained, or a rank failed in it
        rows = last.next_value if last.next == "rows" else last.rows
    else:
        best = best_settings(data.trials, latest_losses(data.outcomes, data.evaluations))
        settings = {rank: setting for (_, rank), setting in best.items()}
        finished = {rank: found for rank, own in settings.items() if (found := _seeds(data, rank, own))}
        seeds = tuple(seed for seed in first_seeds(data.spec) if all(seed in found for found in finished.values()))
        ranks = tuple(finished) if seeds else ()
        rows = data.resolved.eval_examples if data.resolved else 0
    return LookRecord(
        look=len(data.looks) + 1,
        ranks=ranks,
        lora_alphas=tuple(settings[rank][0] for rank in ranks),
        learning_rates=tuple(settings[rank][1] for rank in ranks),
        seeds=seeds,
        rows=rows,
        information=0.0,
        next="exhausted",
        next_ranks=ranks,
        next_value=0,
        next_seconds=0.0,
    )


def _seeds(data: StudyData, rank: int, setting: Setting, states: Collection[str] = ("finished",)) -> set[int]:
    """Return the seeds in which a rank's trial at a setting has come to one of these states."""
    return {
        trial.seed
        for trial in data.trials
        if (trial.rank, trial.setting) == (rank, setting)
        and trial.trial_id in data.outcomes
        and data.outcomes[trial.trial_id].state in states
    }


def _with_open_ranks(
    data: StudyData, look: LookRecord, seen: Sequence[Mapping[int, SeedRows]]
) -> tuple[LookRecord, bool]:
    """Leave out the ranks that are settled, and say whether the verdict is open."""
    looks = look_differences(seen, [*(before.information for before in data.looks), look.information])
    pairs: Differences = latest(looks)
    ranks = sorted({rank for pair in pairs for rank in pair})
    tests = claims_over_looks(ranks, looks, data.spec.tolerance)
    best = min(look.ranks, key=lambda rank: seen[-1][rank].loss)
    excess = {rank: pairs[rank, best].value if rank != best else 0.0 for rank in ranks}
    is_named = any(test.is_adequate for test in tests.values())
    kept = tuple(
        rank for rank in look.ranks if rank == best or not is_settled(tests[rank], excess[rank], data.spec.tolerance)
    )
    return replace(look, next_ranks=kept), not is_named or bool(open_ranks(tests, excess, data.spec.tolerance))


def _needs_steps(data: StudyData, look: LookRecord, best: int) -> bool:
    """Return True where only more steps can bring a verdict."""
    total = data.resolved.total_steps if data.resolved else 0
    trials = [trial.trial_id for trial in data.trials if (trial.rank, trial.setting) == (best, look.settings[best])]
    falling = any(still_falling(data.evaluations[name], data.spec.tolerance) for name in trials)
    return falling or total < LEAST


def _purchases(
    data: StudyData, look: LookRecord, raw: Sequence[Uncertain], most: Most, prices: Prices
) -> Iterator[Purchase]:
    failed = set().union(*(_seeds(data, rank, look.settings[rank], NOT_COMPARED) for rank in look.next_ranks))
    return further_data(
        ranks=len(look.next_ranks),
        seeds=look.seeds,
        rows=look.rows,
        held=data.resolved.eval_examples if data.resolved else 0,
        most=most,
        prices=prices,
        further=[seed for seed in sequential_seeds(data.spec) if seed not in failed],
        half_width=lambda seeds, rows: _half_width(raw, look, seeds / len(look.seeds), rows / look.rows),
    )


def further_data(
    *,
    ranks: int,
    seeds: Sequence[int],
    rows: int,
    held: int,
    most: Most,
    prices: Prices,
    further: Sequence[int],
    half_width: Callable[[int, int], float],
) -> Iterator[Purchase]:
    """Yield the data that may follow a look: twice the held-out rows, or one more seed.

    Args:
        ranks: how many are in question.
        seeds: those of the look.
        rows: held-out rows of the look.
        held: those on which training is evaluated.
        most: that the study can have.
        prices: of further data.
        further: seeds that the study may train, those of the look among them or not.
        half_width: half the interval that is expected with so many seeds and rows.
    """
    if rows < most.rows:
        wanted, count = min(2 * rows, most.rows), len(seeds)
        cost = (wanted - rows) * prices.row * ranks * count
        yield Purchase(kind="rows", value=wanted, half_width=half_width(count, wanted), cost=cost)
    new = next((seed for seed in further if seed not in seeds), None)
    if new is not None and len(seeds) < most.seeds:
        cost = ranks * (prices.trial + (rows - held) * prices.row)
        yield Purchase(kind="seed", value=new, half_width=half_width(len(seeds) + 1, rows), cost=cost)


def _half_width(raw: Sequence[Uncertain], look: LookRecord, seeds: float, rows: float) -> float:
    """Return half the widest interval with so many times the seeds and rows, all else as it is."""
    widest = max(raw, key=lambda found: found.variance)
    variance = _variance(widest, seeds, rows)
    part = (widest.seeds_variance - widest.shared_variance) / seeds + widest.shared_variance / (seeds * rows)
    freedom = round((len(look.ranks) - 1) * (seeds * len(look.seeds) - 1))
    degrees = joint_degrees(freedom, variance, part) if part > 0 else math.inf
    return -math.sqrt(variance) * float(stdtrit(degrees, LEVEL / 2))


def _variance(found: Uncertain, seeds: float, rows: float) -> float:
    """Return the variance of a difference with so many times the seeds and rows."""
    of_rows, of_seeds = found.variance - found.seeds_variance, found.seeds_variance - found.shared_variance
    return of_rows / rows + of_seeds / seeds + found.shared_variance / (seeds * rows)

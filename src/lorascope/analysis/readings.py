"""Readings that people take from a study's charts, computed."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from lorascope.analysis.alpha_rule import alpha_effect
from lorascope.analysis.baseline import read_grid, read_naively
from lorascope.analysis.estimates.curves import final_spread, stable_step
from lorascope.analysis.estimates.paired import Uncertain
from lorascope.analysis.findings import Findings
from lorascope.analysis.readings_schema import DoublingSection, RankReadingSection, ReadingsSection
from lorascope.analysis.summary import RankSection
from lorascope.analysis.tradeoff import full_training_bytes, tradeoff, training_bytes
from lorascope.analysis.verdict.schema import RecommendationSection
from lorascope.message import Message, Sentences

Pairs = Mapping[tuple[int, int], Uncertain]


def read_study(found: Findings, ranks: Sequence[RankSection], recommendation: RecommendationSection) -> ReadingsSection:
    """Read everything that needs no verdict."""
    data, pairs = found.data, found.comparison.differences if found.comparison else {}
    readings = tuple(_read_rank(found, part, ranks, pairs) for part in ranks)
    doublings = read_doublings(ranks, pairs)
    knee, knee_text = find_knee(doublings, data.spec.tolerance)
    return ReadingsSection(
        alpha=alpha_effect(data.spec, data.trials),
        naive=read_naively(data, found.trials, found.choices, recommendation),
        ranks=readings,
        doublings=doublings,
        knee=knee,
        knee_text=knee_text,
        full_training_bytes=full_training_bytes(data.resolved),
        balance=tradeoff(data.resolved, ranks, readings, recommendation),
        grid=read_grid(found.trials),
    )


def read_doublings(ranks: Sequence[RankSection], pairs: Pairs) -> tuple[DoublingSection, ...]:
    """Put every rank beside the next larger one that has a held-out loss; empty before ranks stand at one step."""
    parameters = {part.rank: part.trainable_parameters for part in ranks}
    doublings = []
    for smaller, larger in pairwise(sorted({rank for pair in pairs for rank in pair})):
        gain = pairs[smaller, larger].interval()
        few, many = parameters[smaller], parameters[larger]
        doublings.append(
            DoublingSection(
                smaller=smaller,
                larger=larger,
                gain=gain.value,
                gain_ci95=(gain.low, gain.high),
                gain_per_doubling=gain.value / math.log2(larger / smaller),
                gain_per_million=gain.value / ((many - few) / 1e6) if few is not None and many is not None else None,
            )
        )
    return tuple(doublings)


def find_knee(doublings: Sequence[DoublingSection], tolerance: float) -> tuple[int | None, Sentences]:
    """Find the smallest rank from which on every step gains less than the tolerance for each doubling."""
    if not doublings:
        return None, (Message("knee.nothing_to_compare"),)
    after = len(doublings)
    while after and doublings[after - 1].gain_per_doubling < tolerance:
        after -= 1
    if after == len(doublings):
        last = doublings[-1]
        return None, (Message("knee.none", larger=last.larger, smaller=last.smaller, gain=last.gain_per_doubling),)
    knee, beyond = doublings[after].smaller, doublings[after:]
    most = max(step.gain_per_doubling for step in beyond)
    reach = max(step.gain_ci95[1] / math.log2(step.larger / step.smaller) for step in beyond)
    found = Message("knee.shown", knee=knee, most=most, tolerance=tolerance)
    if reach >= tolerance:
        found = Message("knee.estimated", knee=knee, most=most, tolerance=tolerance, reach=reach)
    return knee, (found, *(Message("knee.before", gain=step.gain_per_doubling) for step in doublings[:after][-1:]))


def _read_rank(found: Findings, part: RankSection, ranks: Sequence[RankSection], pairs: Pairs) -> RankReadingSection:
    data, choice = found.data, found.choices.get(part.rank)
    losses = [other.train_loss for other in ranks if other.train_loss is not None]
    pair = pairs.get((part.rank, max(found.choices, default=part.rank)))
    above = pair.interval() if pair else None
    base = found.base_eval_loss
    ended = choice is not None and all(trial.outcome == "finished" for trial in choice.trials)
    curves = [data.steps[trial.trial_id] for trial in choice.trials] if choice and ended else []
    level, zone = part.train_loss, data.spec.convergence_band
    resolved, count = data.resolved, part.trainable_parameters
    return RankReadingSection(
        rank=part.rank,
        stable_step=stable_step(curves, level, zone) if level is not None else None,
        train_gap=level - min(losses) if level is not None else None,
        final_spread=final_spread(curves),
        loss_gained=base - part.eval_loss if base is not None and part.eval_loss is not None else None,
        excess_over_largest=above.value if above else None,
        excess_over_largest_ci95=(above.low, above.high) if above else None,
        trainable_share=count / resolved.base_parameters if resolved and count is not None else None,
        training_bytes=training_bytes(resolved, part),
    )

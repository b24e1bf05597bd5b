"""Sets of target modules compared with each other: at equal parameters, and at the rank that each set's verdict names.

Every (set, rank) stands at its best alpha and learning rate, on the same held-out rows and the same seeds. The variance
of a difference is that between ranks (``estimates.paired``), its seeds' part pooled over all of them.

Which ranks are compared is decided on the rows that compare them. So p-values are corrected over all pairs that could
have been chosen, and intervals keep the false coverage rate (Benjamini and Yekutieli, JASA 100, 2005).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from lorascope.analysis.estimates.holm import holm
from lorascope.analysis.estimates.paired import LEVEL, SeedRows, Uncertain, differences
from lorascope.analysis.findings import Findings
from lorascope.analysis.summary import SetComparisonSection, SetSummary, TargetSetSection, TargetSetsSection
from lorascope.analysis.verdict.decide import LEAST
from lorascope.message import Message
from lorascope.records import Arm

NEAR = 1.5
"""Adapters of two sets are compared as of equal size where one has at most this many times the other's parameters."""

Pair = tuple[Arm, Arm]


def compare_sets(summaries: Mapping[str, SetSummary], findings: Mapping[str, Findings]) -> TargetSetsSection:
    """Compare the sets and choose the one to use; by name, in the order of the study."""
    rows = _rows_of_arms(findings)
    named = {name: one.recommendation.use.rank for name, one in summaries.items()}
    best = [(name, rank) for name, rank in named.items() if rank is not None and (name, rank) in rows]
    pairs = _differences(rows)
    use, reason = next(iter(summaries)), Message("sets.not_compared", least=LEAST)
    if len(best) == len(summaries):
        tolerance = next(iter(findings.values())).data.spec.tolerance
        use, reason = choose_set(summaries, best, pairs, rows, tolerance)
    return TargetSetsSection(
        use=use,
        reason=reason,
        near=NEAR,
        seeds=max((len(one.losses) for one in rows.values()), default=0),
        sets=tuple(TargetSetSection(name=name, summary=one) for name, one in summaries.items()),
        comparisons=compare_ranks(summaries, pairs, best),
    )


def _rows_of_arms(findings: Mapping[str, Findings]) -> dict[Arm, SeedRows]:
    """Return the held-out rows of every set and rank, over the seeds of all; none before they can be compared."""
    compared = {name: found.comparison for name, found in findings.items()}
    steps = {one.step if one else None for one in compared.values()}
    seeds = [set(one.seeds) if one else set() for one in compared.values()]
    common = [seed for one in compared.values() if one for seed in one.seeds if all(seed in own for own in seeds)]
    shared = tuple(dict.fromkeys(common))
    if None in steps or len(steps) > 1 or not shared:
        return {}
    if any(len(choice.rows.target_tokens) < LEAST for found in findings.values() for choice in found.choices.values()):
        return {}
    return {
        (name, rank): choice.at(shared) for name, found in findings.items() for rank, choice in found.choices.items()
    }


def _differences(rows: Mapping[Arm, SeedRows]) -> dict[Pair, Uncertain]:
    """Estimate the loss of one arm minus that of another, every pair both ways."""
    arms = list(rows)
    found = {(arms[i], arms[j]): one for (i, j), one in differences(list(rows.values())).items()} if rows else {}
    return found | {(b, a): one.turned() for (a, b), one in found.items()}


def choose_set(
    summaries: Mapping[str, SetSummary],
    best: Sequence[Arm],
    pairs: Mapping[Pair, Uncertain],
    rows: Mapping[Arm, SeedRows],
    tolerance: float,
) -> tuple[str, Message]:
    """Choose the set with the fewest parameters of those shown to be adequate, else that of lowest loss.

    Adequate means within the tolerance of every rank of the other sets: each set's rank was chosen on the same rows.
    One seed shows nothing of another.

    Args:
        summaries: by set.
        best: the rank to use of each set.
        pairs: difference of each two arms, both ways.
        rows: of each arm.
        tolerance: in nats a token.

    Returns:
        The set's name, and why.
    """
    found = [max(pairs[a, b].chance_below(tolerance) for b in rows if b[0] != a[0]) for a in rows]
    # The arm of the lowest loss is adequate, so that at least one hypothesis of inadequacy is false
    tests = dict(zip(rows, holm(found, most_true=len(rows) - 1), strict=True))
    enough = [arm for arm in best if tests[arm] <= LEVEL and len(rows[arm].losses) > 1]
    if enough:
        name, rank = min(enough, key=lambda arm: _parameters(summaries, arm) or math.inf)
        return name, Message("sets.adequate", targets=name, rank=rank, tolerance=tolerance)
    name, rank = min(best, key=lambda arm: rows[arm].loss)
    return name, Message("sets.lowest", targets=name, rank=rank, tolerance=tolerance)


def compare_ranks(
    summaries: Mapping[str, SetSummary], pairs: Mapping[Pair, Uncertain], best: Sequence[Arm]
) -> tuple[SetComparisonSection, ...]:
    """Compare every two sets at nearly equal parameters, and at the ranks to use.

    Args:
        summaries: by set.
        pairs: difference of each two arms, both ways.
        best: the rank to use of each set.
    """
    near, at_best = list(_near_pairs(summaries, pairs)), list(combinations(best, 2))
    order = list(summaries)
    possible = [(a, b) for a, b in pairs if order.index(a[0]) < order.index(b[0])]
    chances = dict(zip(possible, holm([pairs[pair].chance_within(0.0) for pair in possible]), strict=True))
    level = LEVEL * len({*near, *at_best}) / max(1, len(possible))

    def section(pair: Pair, *, equal: bool) -> SetComparisonSection:
        (first, first_rank), (second, second_rank) = pair
        sizes = [_parameters(summaries, arm) for arm in pair]
        interval = pairs[pair].interval(below=level / 2, above=level / 2)
        return SetComparisonSection(
            equal_parameters=equal,
            first=first,
            first_rank=first_rank,
            first_parameters=sizes[0],
            second=second,
            second_rank=second_rank,
            second_parameters=sizes[1],
            difference=interval.value,
            difference_ci95=(interval.low, interval.high),
            p=chances[pair],
        )

    return (*(section(pair, equal=True) for pair in near), *(section(pair, equal=False) for pair in at_best))


def _near_pairs(summaries: Mapping[str, SetSummary], pairs: Mapping[Pair, Uncertain]) -> Iterator[Pair]:
    """Yield the ranks of every two sets that are nearest in parameters, each rank once, within ``NEAR``."""
    for first, second in combinations(summaries, 2):
        sizes = {}
        for pair in pairs:
            (one, few), (other, many) = ((arm[0], _parameters(summaries, arm)) for arm in pair)
            if (one, other) == (first, second) and few and many:
                sizes[pair] = max(few, many) / min(few, many)
        taken: set[Arm] = set()
        for pair in sorted((pair for pair, ratio in sizes.items() if ratio <= NEAR), key=sizes.__getitem__):
            if not taken & set(pair):
                taken |= set(pair)
                yield pair


def _parameters(summaries: Mapping[str, SetSummary], arm: Arm) -> int | None:
    return next(part.trainable_parameters for part in summaries[arm[0]].ranks if part.rank == arm[1])

"""Refuse limits that no rank keeps by its solo runs, before joint training."""

from collections.abc import Sequence

from lorascope.analysis.cost.solo_runs import costs_by_rank, measured_cost
from lorascope.analysis.verdict.limits import RankedCost, none_within
from lorascope.errors import InputError
from lorascope.records import AdapterRecord, SoloRun
from lorascope.search.target_sets import studies_by_set
from lorascope.spec.limits import Limit, limits_of, worst_share
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from lorascope.text.numbers import lower_first
from lorascope.text.say import say


def check_measured(store: StudyStore, spec: StudySpec, total_steps: int) -> None:
    """Check that some rank may be within all limits, as far as it was measured.

    Raises:
        InputError: no rank is within the limits; it says which comes nearest.
    """
    limits = limits_of(spec)
    if not limits:
        return
    adapters, runs = store.read(AdapterRecord), store.read(SoloRun)
    costs = []
    for targets in studies_by_set(spec):
        sizes = {adapter.rank: adapter for adapter in adapters if adapter.targets == targets}
        alone = costs_by_rank([run for run in runs if run.targets == targets])
        costs += [measured_cost(rank, sizes.get(rank), alone.get(rank), total_steps) for rank in sorted(spec.ranks)]
    if all(any(limit.exceeded(cost) for limit in limits) for cost in costs):
        raise InputError(lower_first(say(none_within(limits, costs))), remedy=remedy_text(limits, costs))


def remedy_text(limits: Sequence[Limit], costs: Sequence[RankedCost]) -> str:
    """State how far the limits would have to be raised for the nearest rank."""
    nearest = min(costs, key=lambda cost: worst_share(limits, cost))
    raised = " and ".join(
        f"{limit.field} to {limit.sufficient(taken)}"
        for limit in limits
        if limit.exceeded(nearest) and (taken := limit.taken(nearest)) is not None
    )
    return f"raise {raised} and run the same command, or ask for smaller ranks in a new folder"
